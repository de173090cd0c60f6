"""Persons, cameras and splits from the lines of a table; errors have line and column."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedreid_pl.data.names import camera_of_folder, number_cameras
from fedreid_pl.data.readers.listing import missing_files
from fedreid_pl.data.readers.named import CODES
from fedreid_pl.data.readers.tables import Table
from fedreid_pl.data.samples import GALLERY, QUERY, SPLITS, TRAIN
from fedreid_pl.errors import FedReIDError

SPLIT_WORDS = {**SPLITS, "training": TRAIN, "probe": QUERY}
SHOWN = 20  # number of invalid lines in a message

Fault = tuple[int, str | None, str]
"""Line, column and description of an error."""


@dataclass(frozen=True)
class Line:
    """One line of a table.

    Args:
        number: number of the line, from 1.
        path: path of the image, relative to the table's folder, or absolute.
        identity: number of the person, or one of `CODES`.
        camera: number of the camera, `None` if the table has no such column.
        split: number of the split, `None` if the table has no such column.
    """

    number: int
    path: str
    identity: int
    camera: int | None
    split: int | None


def read_lines(table: Table, root: Path) -> list[Line]:
    """Returns the lines of a table.

    Persons and cameras are numbers. If no line has a number, they are names and are numbered in alphabetical order.

    Raises:
        FedReIDError: if lines are invalid or images are missing. The message explains the first invalid line and lists
            the others.
    """
    rows = list(table.rows)
    faults: list[Fault] = [
        (number, column, f"has no {column}")
        for number, values in rows
        for column in table.columns
        if not values[column]
    ]
    identities = _identities([values["identity"] for _, values in rows])
    cameras = _cameras([values.get("camera", "") for _, values in rows])
    lines: list[Line] = []
    for number, values in rows:
        identity, camera, split = values["identity"], values.get("camera"), values.get("split")
        if identity and identity not in identities:
            faults.append(
                (number, "identity", f"identity {identity!r} is not a number from 0, -1 (or junk) or distractor")
            )
        if camera and camera not in cameras:
            faults.append((number, "camera", f"camera {camera!r} is not a number from 0"))
        if split and split.lower() not in SPLIT_WORDS:
            faults.append((number, "split", f"split {split!r} is not one of {', '.join(SPLITS)}"))
        lines.append(
            Line(
                number,
                posixpath.normpath(values["path"]),
                identities.get(identity, 0),
                None if camera is None else cameras.get(camera, 0),
                None if split is None else SPLIT_WORDS.get(split.lower(), TRAIN),
            )
        )
    lines = _with_separators(root, lines)
    known = {number for number, _, _ in faults}
    good = [line for line in lines if line.number not in known]
    faults += _uses(good)
    missing = missing_files(root, [line.path for line in good])
    faults += [(good[at].number, "path", f"there is no image {root / good[at].path}") for at in missing]
    if faults:
        raise FedReIDError(_explain(table, faults))
    return lines


def _identities(texts: Sequence[str]) -> dict[str, int]:
    names = {text for text in texts if text and text not in CODES}
    numbers = {text for text in names if re.fullmatch(r"[0-9]{1,18}", text)}
    if numbers or any(re.fullmatch(r"[\W0-9.]+", text) for text in names):
        return CODES | {text: int(text) for text in numbers}
    return CODES | {text: number for number, text in enumerate(sorted(names))}


def _cameras(texts: Sequence[str]) -> dict[str, int]:
    spelled = {text: found for text in set(texts) if (found := _camera(text))}
    if spelled:
        numbers = number_cameras(spelled.values())
        return {text: numbers[found] for text, found in spelled.items()}
    names = {text for text in texts if text and re.search(r"[^\W0-9]", text)}
    return number_cameras(names)


def _camera(text: str) -> str | None:
    return text if re.fullmatch(r"[0-9]{1,9}", text) else camera_of_folder(text)


def _with_separators(root: Path, lines: list[Line]) -> list[Line]:
    """Returns the lines with `/` instead of Windows separators in paths."""
    if not any("\\" in line.path for line in lines):
        return lines
    changed = [
        posixpath.normpath(line.path.replace("\\", "/"))
        if "\\" in line.path and not (root / line.path).exists()
        else None
        for line in lines
    ]
    return [
        line if path is None else Line(line.number, path, line.identity, line.camera, line.split)
        for line, path in zip(lines, changed, strict=True)
    ]


def _uses(lines: Sequence[Line]) -> list[Fault]:
    """Returns an error for every image that is in the table twice, except once as a query and once in the gallery."""
    uses: dict[str, set[int | None]] = {}
    faults: list[Fault] = []
    for line in lines:
        before = uses.setdefault(line.path, set())
        if before and not ({line.split, *before} == {QUERY, GALLERY} and line.split not in before):
            faults.append((line.number, "path", f"{line.path} stands in the table already"))
        before.add(line.split)
    return faults


def _explain(table: Table, faults: list[Fault]) -> str:
    faults.sort(key=lambda fault: fault[0])
    numbers = list(dict.fromkeys(number for number, _, _ in faults))
    number, column, text = faults[0]
    others = ", ".join(map(str, numbers[1:SHOWN])) + (", ..." if len(numbers) > SHOWN else "")
    more = f"; bad as well: {'line' if len(numbers) == 2 else 'lines'} {others}" if len(numbers) > 1 else ""
    return f"{table.place(number, column)}: {text}{more}"
