"""Listings of a dataset's folders (each folder is listed once), and the construction of its table."""

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
    """The folders and files that a reader has opened. As long as `seen` does not change, the result is the same.

    Args:
        seen: folders and text files.
        entries: names of the files and of the folders in every listed folder.
        offered: folders whose images the reader has received; it may have left some of them out.
    """

    seen: set[str] = field(default_factory=set)
    entries: dict[str, tuple[list[str], list[str]]] = field(default_factory=dict)
    offered: set[str] = field(default_factory=set)


_looked: ContextVar[Looked | None] = ContextVar("looked", default=None)


@contextmanager
def witnesses() -> Iterator[Looked]:
    """Returns a context that records the folders and files that readers open."""
    looked = Looked()
    token = _looked.set(looked)
    try:
        yield looked
    finally:
        _looked.reset(token)


def look_at(path: str | Path) -> None:
    """Records a folder or file in `witnesses`, for a reader that opens it itself."""
    if (looked := _looked.get()) is not None:
        looked.seen.add(os.fspath(path))


def has_folders(folder: Path, *names: str) -> bool:
    """Returns whether `folder` contains folders with all these names; `False` if it cannot be read."""
    look_at(folder)
    return all(os.path.isdir(folder / name) for name in names)


def has_files(folder: Path, *names: str) -> bool:
    """Returns whether `folder` contains files with all these names; `False` if it cannot be read."""
    look_at(folder)
    return all(os.path.isfile(folder / name) for name in names)


def image_names(folder: Path, expects: str) -> list[str]:
    """Returns the sorted base names of the images in `folder`, without hidden files.

    Args:
        folder: the folder; its subfolders are not listed.
        expects: expected content of the dataset, for the message about a missing folder.

    Raises:
        FedReIDError: if the folder is missing, cannot be read or contains no image.
    """
    files, _ = list_folder(folder, expects)
    names = _pictures(folder, files)
    if (looked := _looked.get()) is not None:
        looked.offered.add(os.path.normpath(folder))
    if not names:
        raise FedReIDError(f"{folder}: contains no image ({', '.join(READ)})")
    return names


def person_folders(folder: Path, expects: str) -> dict[str, list[str]]:
    """Returns the sorted images of every person in `folder/PERSON/IMAGE`; folders without an image are left out.

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
        raise FedReIDError(f"{folder}: contains no image in a folder of its person, such as 0001/NAME.jpg")
    return persons


def person_numbers(folder: Path, persons: Iterable[str]) -> dict[str, int]:
    """Returns the person number of every folder name of a split, such as `0012`, `12` or `-1`.

    Raises:
        FedReIDError: if a name is not a number, or two names have the same number.
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
    """Returns the positions of missing files among `paths` (relative to `folder`), in ascending order.

    Every directory is listed once, which is faster than a check of every file.
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
        # some file systems ignore case or Unicode composition, so check the file before it counts as missing
        if name not in known[place] and not os.path.isfile(folder / path):
            missing.append(position)
    return missing


def read_text(path: Path, expects: str) -> str:
    """Returns the content of a text file: UTF-8 with or without a byte order mark, or UTF-16 with one.

    Raises:
        FedReIDError: if the file is missing, cannot be read or is not text.
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
    """Returns a path with `/` between folders, also for lists written on Windows.

    >>> portable(r"0000\\0000_000_01_a.jpg")
    '0000/0000_000_01_a.jpg'
    """
    return path.replace("\\", "/")


def pictures_and_folders(folder: Path, expects: str) -> tuple[list[str], list[str]]:
    """Returns the sorted names of the images and of the folders in `folder`, without hidden ones; both may be empty.

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
    """Returns the table of `rows`, sorted by split and path, with the remarks of its reader."""
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
    """Returns the unsorted names of files and of folders in `folder`; within `witnesses` the result is cached.

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
        with os.scandir(folder) as entries:  # knows which entries are folders without a call per name
            for entry in entries:
                (folders if entry.is_dir() else files).append(entry.name)
    except FileNotFoundError as error:
        raise FedReIDError(f"{folder}: no such folder; expected {expects}") from error
    except OSError as error:
        raise FedReIDError(f"{folder}: cannot be read ({error.strerror})") from error
    return files, folders
