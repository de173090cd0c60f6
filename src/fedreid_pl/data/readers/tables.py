"""Reader of text tables from spreadsheets and scripts, with various separators, encodings and headings."""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedreid_pl.data.readers.listing import look_at
from fedreid_pl.errors import FedReIDError

HEADINGS: Mapping[str, tuple[str, ...]] = {
    "path": (
        *("path", "file", "filename", "filepath", "image", "imagepath", "imagefile", "imagename"),
        *("img", "imgpath", "imgfile", "imgname", "picture", "photo", "crop"),
    ),
    "identity": (
        *("identity", "identityid", "id", "pid", "person", "personid", "personnumber"),
        *("subject", "subjectid", "label"),
    ),
    "camera": ("camera", "cameraid", "cam", "camid", "cid", "cameranumber", "camno", "view"),
    "split": ("split", "set", "subset", "part", "partition"),
}
"""Accepted headings of every column; case, spaces, `_` and `-` are ignored."""

ENDINGS = (".csv", ".tsv", ".tab", ".txt")
SEPARATORS = ",;\t|"
HEAD = 8192  # number of bytes that contain a table's first line


@dataclass(frozen=True)
class Table:
    """A table with known columns.

    Args:
        file: path of the table.
        columns: heading in the file, by meaning (`path`, `identity`, `camera`, `split`).
        rows: line number and stripped values by meaning; empty lines are left out.
    """

    file: Path
    columns: Mapping[str, str]
    rows: Iterator[tuple[int, dict[str, str]]]

    def place(self, line: int, column: str | None) -> str:
        """Returns table, line and column of a cell, for a message."""
        return f"{self.file}, line {line}" + (
            f", column {self.columns[column]}" if column and column in self.columns else ""
        )


def read_table(file: Path, needed: tuple[str, ...], expects: str) -> Table:
    """Reads the headings of a table and returns the table; its rows are read lazily.

    Raises:
        FedReIDError: if the file cannot be read, is neither UTF-8 nor UTF-16, or has no heading or several headings for
            one of `needed`. The iteration over the rows raises it for a row that is not CSV or has too many values. The
            message has table, line and column.
    """
    text = _read(file, expects)
    first, header = _header(text)
    if not header:
        raise FedReIDError(f"{file}: is empty; expected {expects}")
    columns = _columns(file, header)
    for column in needed:
        if column not in columns:
            known = ", ".join(HEADINGS[column][:5])
            raise FedReIDError(
                f"{file}, line {first[0]}: no column {column} ({known}, ...) among {', '.join(header)}; "
                f"expected {expects}"
            )
    return Table(file, columns, _rows(file, text, first, header, columns))


def headings_of(file: Path) -> set[str]:
    """Returns the meanings of the headings in a table's first line; empty if the file is unreadable or not a table."""
    try:
        with open(file, "rb") as stream:
            head = stream.read(HEAD)
        text = _decode(head.rpartition(b"\n")[0] or head if not _is_wide(head) else head[: len(head) // 2 * 2])
    except (OSError, UnicodeDecodeError):
        return set()
    _, header = _header(text)
    return {meaning for meaning, names in HEADINGS.items() if any(_plain(word) in names for word in header)}


def find_tables(folder: Path, needed: tuple[str, ...]) -> list[str]:
    """Returns the sorted names of the tables in `folder` that have the needed columns."""
    look_at(folder)
    try:
        names = sorted(name for name in os.listdir(folder) if name.lower().endswith(ENDINGS) and name[0] != ".")
    except OSError:
        return []
    return [name for name in names if os.path.isfile(folder / name) and set(needed) <= headings_of(folder / name)]


def _read(file: Path, expects: str) -> str:
    look_at(file)
    try:
        content = file.read_bytes()
    except FileNotFoundError as error:
        raise FedReIDError(f"{file}: no such file; expected {expects}") from error
    except OSError as error:
        raise FedReIDError(f"{file}: cannot be read ({error.strerror})") from error
    try:
        return _decode(content)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise FedReIDError(f"{file}, line {line}: is not UTF-8 or UTF-16; save the table as UTF-8") from error


def _is_wide(content: bytes) -> bool:
    return content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) or b"\0" in content[:4]


def _decode(content: bytes) -> str:
    if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return content.decode("utf-16")
    if content[1:2] == b"\0" or content[:1] == b"\0":  # UTF-16 without a byte order mark
        return content.decode("utf-16-le" if content[1:2] == b"\0" else "utf-16-be")
    return content.decode("utf-8-sig")


def _header(text: str) -> tuple[tuple[int, str], list[str]]:
    """Returns (line number, separator) and the headings of the first line that is not empty."""
    lines = text.splitlines()
    start = next((place for place, line in enumerate(lines) if line.strip()), None)
    if start is None:
        return (1, ","), []
    if (declared := re.fullmatch(r"\ufeff?sep=(.)", lines[start].strip(" "))) and start + 1 < len(lines):
        return (start + 2, declared[1]), _split(lines[start + 1], declared[1])
    known = {name for names in HEADINGS.values() for name in names}

    def fitness(separator: str) -> int:
        return sum(_plain(word) in known for word in _split(lines[start], separator))

    best = max(SEPARATORS, key=fitness)
    return (start + 1, best), _split(lines[start], best)


def _split(line: str, separator: str) -> list[str]:
    return [word.strip().strip('"').strip() for word in line.split(separator)]


def _plain(heading: str) -> str:
    return re.sub(r"[\s_-]", "", heading).lower()


def _columns(file: Path, header: list[str]) -> dict[str, str]:
    """Returns the heading of each column in the table; the column's own name has priority over synonyms."""
    columns = {}
    for meaning, names in HEADINGS.items():
        found = [word for word in header if _plain(word) in names]
        exact = [word for word in found if _plain(word) == meaning]
        if len(exact or found) > 1:
            twice = " and ".join(exact or found)
            raise FedReIDError(f"{file}: the first line names the {meaning} twice, {twice}; rename one of them")
        if found:
            columns[meaning] = (exact or found)[0]
    return columns


def _rows(
    file: Path, text: str, first: tuple[int, str], header: list[str], columns: Mapping[str, str]
) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=first[1], strict=True)
    places = {meaning: header.index(heading) for meaning, heading in columns.items()}
    number = 0
    try:
        for values in reader:
            start, number = number + 1, reader.line_num
            values = [value.strip() for value in values]
            if start <= first[0] or not any(values):
                continue
            if len(values) > len(header) and any(values[len(header) :]):
                raise FedReIDError(f"{file}, line {start}: {len(values)} values for {len(header)} columns")
            yield start, {meaning: values[at] if at < len(values) else "" for meaning, at in places.items()}
    except csv.Error as error:
        raise FedReIDError(f"{file}, line {number + 1}: is not CSV ({error})") from error
