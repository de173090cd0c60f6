"""Files that may come from anybody: looked up inside their folder, and read up to a bound.

A run's folder may hold anything under the names that this program knows: links that lead out, devices, pipes, files
of any size. Nothing here follows a link out of the folder, waits for a pipe, or reads more than was asked for.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath

from fedreid_pl.errors import FedReIDError, printable


class OutsideFolder(FedReIDError):
    """A name that leads out of its folder."""


def inside(folder: Path, name: str) -> Path:
    """The path of `name` below `folder`.

    Raises:
        OutsideFolder: for an absolute name, `..`, control characters, or a symbolic link that leads out.
    """
    pure = PurePosixPath(name)
    plain = name.isprintable() and "\\" not in name and not pure.is_absolute() and ".." not in pure.parts
    path = folder / name if plain and pure.parts else folder
    try:
        home = folder.resolve()
        found = plain and path != folder and path.resolve().is_relative_to(home)
    except (OSError, RuntimeError, ValueError):  # a loop of links, a name that is too long
        found = False
    if not found:
        raise OutsideFolder(f"{folder}: the name {printable(name)!r} leads out of the folder; it is not read")
    return path


def read_bounded(path: Path, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes.

    Raises:
        FedReIDError: if it is longer, or no regular file.
        OSError: if it cannot be opened or read.
    """
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0))
    with open(number, "rb") as file:
        state = os.fstat(number)
        if not stat.S_ISREG(state.st_mode):
            raise FedReIDError(f"{path}: is no regular file; it is not read")
        if state.st_size > most:
            raise FedReIDError(f"{path}: has {state.st_size:,} bytes, at most {most:,} are read")
        content = file.read(most + 1)
    if len(content) > most:
        raise FedReIDError(f"{path}: has more than {most:,} bytes")
    return content


def read_text_inside(folder: Path, name: str, most: int) -> str:
    """The text in UTF-8 of a file in `folder`.

    Raises:
        FedReIDError: if it leads out of the folder, is too long, no regular file, or no text in UTF-8.
        OSError: if it cannot be opened or read.
    """
    path = inside(folder, name)
    try:
        return read_bounded(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FedReIDError(f"{path}: is not a text file in UTF-8") from error


def refuse_links(folder: Path, names: tuple[str, ...]) -> None:
    """Refuses a folder whose parts, or what is directly in them, are links that lead out.

    Raises:
        OutsideFolder: naming the link.
    """
    for name in names:
        part = folder / name
        inside(folder, name)
        if part.is_dir():
            for item in os.scandir(part):
                if item.is_symlink():
                    inside(folder, f"{name}/{item.name}")
