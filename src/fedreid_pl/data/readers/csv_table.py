"""A table of anyone's own pictures, wherever they lie below the dataset's folder.

    ROOT/samples.csv      path,identity,camera,split
                          shots/monday/0007.jpg,12,3,train

The four columns may stand in any order and beside others. `path` is relative to the table's folder, or absolute.
`identity` is a number from 0, `-1` or `junk`, or `distractor`; `camera` a number from 0; `split` is train, query or
gallery. An image stands once in the table, or once as a query and once in the gallery. A table of another name is taken
if it is the only `*.csv` with these columns.
"""

from __future__ import annotations

import csv
import io
import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from fedreid_pl.data.readers.cuhk03_mat import is_cuhk03_mat
from fedreid_pl.data.readers.dgd import is_dgd
from fedreid_pl.data.readers.fedreid_processed import is_fedreid_processed
from fedreid_pl.data.readers.layout import Layout, ReadOptions
from fedreid_pl.data.readers.listing import Row, look_at, make_table, missing_files, read_text
from fedreid_pl.data.readers.market1501 import is_market1501
from fedreid_pl.data.readers.msmt17 import is_msmt17
from fedreid_pl.data.samples import DISTRACTOR, JUNK, SPLITS, TRAIN, SampleTable
from fedreid_pl.errors import FedReIDError

COLUMNS = ("path", "identity", "camera", "split")
EXPECTS = f"samples.csv (or one other *.csv) with the columns {','.join(COLUMNS)}"
CODES = {"-1": JUNK, "junk": JUNK, "distractor": DISTRACTOR}
OTHERS = (is_market1501, is_msmt17, is_fedreid_processed, is_dgd, is_cuhk03_mat)


def is_csv_table(root: Path) -> bool:
    """Whether a `*.csv` in `root` has the four columns and `root` has none of the more special layouts."""
    return bool(_tables(root)) and not any(recognise(root) for recognise in OTHERS)


def read_csv_table(root: Path, name: str, options: ReadOptions) -> SampleTable:
    """The samples of the table in `root`, sorted by split and path.

    Raises:
        FedReIDError: if there is no table or more than one, or lines of it are bad: the first is explained, the
            others are named.
    """
    file = _table(root)
    rows: list[Row] = []
    numbers: list[int] = []  # of the rows' lines
    bad: list[tuple[int, str]] = []
    uses: dict[str, set[int]] = {}
    for number, values in _lines(file):
        try:
            row = _row(values)
            _note_use(uses, row)
        except ValueError as error:
            bad.append((number, str(error)))
            continue
        rows.append(row)
        numbers.append(number)
    for position in missing_files(root, [row[0] for row in rows]):
        bad.append((numbers[position], f"there is no image {root / rows[position][0]}"))
    if bad:
        bad.sort()
        others = ", ".join(str(number) for number, _ in bad[1:20]) + (", ..." if len(bad) > 20 else "")
        more = f"; bad as well: {'line' if len(bad) == 2 else 'lines'} {others}" if len(bad) > 1 else ""
        raise FedReIDError(f"{file}, line {bad[0][0]}: {bad[0][1]}{more}")
    if options.train_only:
        rows = [row for row in rows if row[3] == TRAIN]
    if not rows:
        raise FedReIDError(f"{file}: names no {'training ' if options.train_only else ''}image")
    return make_table(name, root, rows)


def to_csv(table: SampleTable) -> str:
    """The table as the text of a `samples.csv` that is read as the same samples again."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    codes = {number: code for code, number in CODES.items()}
    names = {number: name for name, number in SPLITS.items()}
    columns = (column.tolist() for column in (table.identities, table.cameras, table.splits))
    for path, identity, camera, split in zip(table.paths, *columns, strict=True):
        writer.writerow([path, codes.get(identity, identity), camera, names[split]])
    return text.getvalue()


def _row(values: dict[str, str]) -> Row:
    """One line of the table; a `ValueError` says what is wrong with it."""
    if absent := [column for column in COLUMNS if not values.get(column)]:
        raise ValueError(f"has no {absent[0]}")
    identity, camera, split = (values[column] for column in COLUMNS[1:])
    if identity not in CODES and not re.fullmatch(r"[0-9]{1,18}", identity):
        raise ValueError(f"identity {identity!r} is not a number from 0, -1 (or junk) or distractor")
    if not re.fullmatch(r"[0-9]{1,9}", camera):
        raise ValueError(f"camera {camera!r} is not a number from 0")
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is not one of {', '.join(SPLITS)}")
    path = posixpath.normpath(values["path"])
    return path, CODES[identity] if identity in CODES else int(identity), int(camera), SPLITS[split]


def _note_use(uses: dict[str, set[int]], row: Row) -> None:
    path, split = row[0], row[3]
    before = uses.setdefault(path, set())
    if split in before or (before and TRAIN in (split, *before)):
        raise ValueError(f"{path} stands in the table already")
    before.add(split)


def _lines(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """`(line number, value by column)` of every line that is not empty, after the header."""
    reader = csv.reader(io.StringIO(read_text(file, EXPECTS)), strict=True)
    header: list[str] = []
    number = 0
    try:
        for values in reader:
            start, number = number + 1, reader.line_num
            values = [value.strip() for value in values]
            if not any(values):
                continue
            if not header:
                header = values
                _check_header(file, header)
            elif len(values) > len(header):
                raise FedReIDError(f"{file}, line {start}: {len(values)} values for {len(header)} columns")
            else:
                yield start, dict(zip(header, values, strict=False))
    except csv.Error as error:
        raise FedReIDError(f"{file}, line {number + 1}: is not CSV ({error})") from error
    if not header:
        raise FedReIDError(f"{file}: is empty; expected {EXPECTS}")


def _check_header(file: Path, header: list[str]) -> None:
    for column in COLUMNS:
        if header.count(column) != 1:
            raise FedReIDError(f"{file}: the first line has to name the column {column} once; expected {EXPECTS}")


def _table(root: Path) -> Path:
    if os.path.isfile(root / "samples.csv"):
        return root / "samples.csv"
    tables = _tables(root)
    if len(tables) != 1:
        found = f"holds the tables {', '.join(tables)}, name one" if tables else "holds no table; expected"
        raise FedReIDError(f"{root}: {found} {'samples.csv' if tables else EXPECTS}")
    return root / tables[0]


def _tables(root: Path) -> list[str]:
    """Names of the `*.csv` in `root` whose first line has the four columns."""
    found = []
    look_at(root)
    try:
        for name in sorted(os.listdir(root)):
            if name.lower().endswith(".csv") and name[0] != "." and os.path.isfile(root / name):
                with open(root / name, encoding="utf-8-sig", errors="replace") as stream:
                    header = [word.strip().strip('"') for word in stream.readline(4096).split(",")]
                if set(COLUMNS) <= set(header):
                    found.append(name)
    except OSError:
        return []
    return found


LAYOUT = Layout("csv_table", "a CSV table of images", EXPECTS, is_csv_table, read_csv_table)
