"""Reads files from untrusted folders: only inside the folder, and only up to a maximum size.

A run folder from another person may contain links to other places, devices, pipes, and files of any size. The
functions of this module never follow a link out of the folder, wait for a pipe, or read more than the maximum size.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath

from fedreid_pl.errors import FedReIDError, printable


class OutsideFolder(FedReIDError):
    """Error for a file name that leads out of its folder."""


def inside(folder: Path, name: str) -> Path:
    """Returns the path of `name` in `folder`.

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
        raise OutsideFolder(f"{folder}: the name {printable(name)!r} leads out of the folder; this file is not read")
    return path


def read_bounded(path: Path, most: int) -> bytes:
    """Returns the content of a regular file of at most `most` bytes.

    Raises:
        FedReIDError: if the file is larger, or is not a regular file.
        OSError: if the file cannot be opened or read.
    """
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0))
    with open(number, "rb") as file:
        state = os.fstat(number)
        if not stat.S_ISREG(state.st_mode):
            raise FedReIDError(f"{path}: is not a regular file, so it is not read")
        if state.st_size > most:
            raise FedReIDError(f"{path}: has {state.st_size:,} bytes, at most {most:,} are read")
        content = file.read(most + 1)
    if len(content) > most:
        raise FedReIDError(f"{path}: has more than {most:,} bytes")
    return content


def read_text_inside(folder: Path, name: str, most: int) -> str:
    """Returns the UTF-8 text of a file in `folder`.

    Raises:
        FedReIDError: if the name leads out of the folder, or the file is too large, not regular, or not UTF-8 text.
        OSError: if the file cannot be opened or read.
    """
    path = inside(folder, name)
    try:
        return read_bounded(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FedReIDError(f"{path}: is not a text file in UTF-8") from error


def refuse_links(folder: Path, names: tuple[str, ...]) -> None:
    """Checks that the subfolders `names` of a folder, and their direct entries, are no links out of the folder.

    Raises:
        OutsideFolder: if there is such a link; the message names the link.
    """
    for name in names:
        part = folder / name
        inside(folder, name)
        if part.is_dir():
            for item in os.scandir(part):
                if item.is_symlink():
                    inside(folder, f"{name}/{item.name}")
