"""Names below a dataset's folder, listed once, and the table made of what the names say."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedreid_pl.data.readers.picture_files import READ, is_picture
from fedreid_pl.data.samples import SampleTable
from fedreid_pl.errors import FedReIDError

Row = tuple[str, int, int, int]
"""Path relative to the dataset's folder, identity, camera, split."""


@dataclass
class Looked:
    """What readers looked at: as long as none of `seen` changes, a reader finds the same again.

    Args:
        seen: folders and text files.
        entries: names of the files and of the folders in every folder that was listed.
        offered: folders whose pictures the reader was given, to take or to leave out.
    """

    seen: set[str] = field(default_factory=set)
    entries: dict[str, tuple[list[str], list[str]]] = field(default_factory=dict)
    offered: set[str] = field(default_factory=set)


_looked: ContextVar[Looked | None] = ContextVar("looked", default=None)


@contextmanager
def witnesses() -> Iterator[Looked]:
    """Yields what readers look at inside the block."""
    looked = Looked()
    token = _looked.set(looked)
    try:
        yield looked
    finally:
        _looked.reset(token)


def look_at(path: str | Path) -> None:
    """Counts a folder or file among the `witnesses`, for a reader that opens it by itself."""
    if (looked := _looked.get()) is not None:
        looked.seen.add(os.fspath(path))


def has_folders(folder: Path, *names: str) -> bool:
    """Whether `folder` holds folders of all these names; `False` where it may not be looked into."""
    look_at(folder)
    return all(os.path.isdir(folder / name) for name in names)


def has_files(folder: Path, *names: str) -> bool:
    """Whether `folder` holds files of all these names; `False` where it may not be looked into."""
    look_at(folder)
    return all(os.path.isfile(folder / name) for name in names)


def image_names(folder: Path, expects: str) -> list[str]:
    """Sorted base names of the images in `folder`; hidden files and folders are none.

    Args:
        folder: is listed, not what is below it.
        expects: what the whole dataset should hold, for the message about a missing folder.

    Raises:
        FedReIDError: if the folder is missing, cannot be read or holds no image.
    """
    files, _ = list_folder(folder, expects)
    names = _pictures(folder, files)
    if (looked := _looked.get()) is not None:
        looked.offered.add(os.path.normpath(folder))
    if not names:
        raise FedReIDError(f"{folder}: holds no image ({', '.join(READ)})")
    return names


def person_folders(folder: Path, expects: str) -> dict[str, list[str]]:
    """Images per person of `folder/PERSON/IMAGE`, sorted; folders without an image are left out.

    Raises:
        FedReIDError: if a folder is missing or cannot be read, or no image is in a person's folder.
    """
    _, folders = list_folder(folder, expects)
    persons = {}
    for person in sorted(name for name in folders if name[0] != "."):
        files, _ = list_folder(folder / person, expects)
        names = _pictures(folder / person, files)
        if names:
            persons[person] = names
    if not persons:
        raise FedReIDError(f"{folder}: holds no image in a folder of its person, such as 0001/NAME.jpg")
    return persons


def person_numbers(folder: Path, persons: Iterable[str]) -> dict[str, int]:
    """The number that each folder name of one split is: `0012`, `12` or `-1`.

    Raises:
        FedReIDError: for a name that is no number, and two names of one number.
    """
    numbers: dict[str, int] = {}
    names: dict[int, str] = {}
    for person in persons:
        if re.fullmatch(r"-1|[0-9]{1,18}", person) is None:
            raise FedReIDError(f"{folder / person}: the folder's name is not a person's number, such as 0001 or -1")
        numbers[person] = int(person)
        first = names.setdefault(int(person), person)
        if first != person:
            raise FedReIDError(f"{folder}: the folders {first} and {person} are one number; give the person one folder")
    return numbers


def missing_files(folder: Path, paths: Sequence[str]) -> list[int]:
    """Positions of those of `paths` (relative to `folder`) that are no file, in ascending order.

    Every directory is listed once instead of asking for every file.
    """
    known: dict[str, frozenset[str]] = {}
    missing = []
    for position, path in enumerate(paths):
        place, name = posixpath.split(path)
        if place not in known:
            try:
                known[place] = frozenset(list_folder(folder / place, "")[0])
            except (FedReIDError, ValueError):  # ValueError: a null byte in the path
                known[place] = frozenset()
        # a file system may take names for equal that differ in case or composition: ask before complaining
        if name not in known[place] and not os.path.isfile(folder / path):
            missing.append(position)
    return missing


def read_text(path: Path, expects: str) -> str:
    """Returns a text file of the dataset: UTF-8 with or without a byte order mark, or UTF-16 with one.

    Raises:
        FedReIDError: if it is missing, cannot be read or is not text.
    """
    look_at(path)
    try:
        content = path.read_bytes()
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        return text.replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError as error:
        raise FedReIDError(f"{path}: no such file; expected {expects}") from error
    except OSError as error:
        raise FedReIDError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise FedReIDError(f"{path}: is not a text file in UTF-8 or, with a byte order mark, UTF-16") from error


def portable(path: str) -> str:
    """Returns a path of a list with `/` between folders, whatever system wrote the list.

    >>> portable(r"0000\\0000_000_01_a.jpg")
    '0000/0000_000_01_a.jpg'
    """
    return path.replace("\\", "/")


def pictures_and_folders(folder: Path, expects: str) -> tuple[list[str], list[str]]:
    """Sorted names of the images and of the folders in `folder`, without hidden ones; both may be empty.

    Raises:
        FedReIDError: if the folder is missing or cannot be read.
    """
    files, folders = list_folder(folder, expects)
    return _pictures(folder, files), sorted(name for name in folders if name[0] != ".")


def make_table(
    name: str,
    root: Path,
    rows: Iterable[Row],
    remarks: Iterable[str] = (),
    *,
    found: str = "",
    has_cameras: bool = True,
) -> SampleTable:
    """The table of `rows`, sorted by split and path, with what its reader has to remark."""
    rows = sorted(rows, key=lambda row: (row[3], row[0]))
    return SampleTable(
        name,
        root,
        tuple(row[0] for row in rows),
        np.array([row[1] for row in rows], dtype=np.int64),
        np.array([row[2] for row in rows], dtype=np.int64),
        np.array([row[3] for row in rows], dtype=np.uint8),
        remarks=tuple(remarks),
        found=found,
        has_cameras=has_cameras,
    )


def _pictures(folder: Path, files: Iterable[str]) -> list[str]:
    place = os.fspath(folder)
    return sorted(name for name in files if is_picture(place, name))


def list_folder(folder: Path, expects: str) -> tuple[list[str], list[str]]:
    """Returns the names of the files and of the folders in `folder`, in no order; inside `witnesses` it is listed once.

    Raises:
        FedReIDError: if the folder is missing or cannot be read.
    """
    looked = _looked.get()
    key = os.path.normpath(folder)
    if looked is None:
        return _scan(folder, expects)
    if key not in looked.entries:
        looked.entries[key] = _scan(folder, expects)
    return looked.entries[key]


def _scan(folder: Path, expects: str) -> tuple[list[str], list[str]]:
    files: list[str] = []
    folders: list[str] = []
    look_at(folder)
    try:
        with os.scandir(folder) as entries:  # knows what is a folder without asking for each name
            for entry in entries:
                (folders if entry.is_dir() else files).append(entry.name)
    except FileNotFoundError as error:
        raise FedReIDError(f"{folder}: no such folder; expected {expects}") from error
    except OSError as error:
        raise FedReIDError(f"{folder}: cannot be read ({error.strerror})") from error
    return files, folders
