"""Atomic files that cannot run code when they are read."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import stat
import warnings
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from fedreid_pl import __version__
from fedreid_pl.data.cache_folder import made_whole
from fedreid_pl.errors import FedReIDError, printable

FORMAT, VERSION = "fedreid_pl", 2
"""Name and version of the format. The version increases when an older fedreid_pl cannot resume from a new file.

Version 1 is the first; since version 2 the header names the version of fedreid_pl that wrote the file.
"""
MOST_BYTES = 8 * 1024**3  # largest size of a file
MOST_PARTS = 1_000_000  # largest number of tensors, numbers and containers in a state
LONGEST_HEADER = 4096  # largest size of a header in bytes


class DamagedFile(FedReIDError):
    """Raised for a file that is truncated, changed, or not of this format."""


class NewerFormat(FedReIDError):
    """Raised for a file of a newer format; fedreid_pl then changes no file of the run."""


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file atomically: a reader finds the old or the new content, even after a kill or a power cut.

    Raises:
        FedReIDError: if the folder is not writable or the disk is full; the old content is intact.
    """
    try:
        with made_whole(path) as temporary, open(temporary, "wb") as file:
            file.write(data)
    except OSError as error:
        advice = {errno.EISDIR: "give the name of a file", errno.ENOSPC: "free disk space"}
        advice |= dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "choose a folder that you may write to")
        raise FedReIDError(
            f"{path}: cannot be written ({error.strerror or error}); files that were saved earlier are intact. "
            f"{advice.get(error.errno or 0, 'free disk space or choose another place').capitalize()}"
        ) from error


def check_output(path: Path, key: str) -> None:
    """Checks that a file can be written, before the work whose result it gets. Writes nothing.

    Args:
        path: the file; missing folders above it count as writable if they can be created.
        key: key of the path, such as `out`; the message begins with it.

    Raises:
        FedReIDError: if the path is a folder, or the file cannot be created.
    """
    if path.is_dir():
        raise FedReIDError(f"{key}={path}: is a folder; give the name of a file")
    place = path.absolute().parent
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        raise FedReIDError(f"{key}={path}: {place} is not a folder; choose another place")
    if not os.access(place, os.W_OK | os.X_OK):
        raise FedReIDError(f"{key}={path}: {place} cannot be written to; choose another folder")


def write_text(path: Path, text: str) -> None:
    """Writes text in UTF-8 atomically, see `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def encode(state: dict[str, Any]) -> bytes:
    """Returns a state of tensors and plain values as bytes that `decode` reads."""
    import torch  # imported here, because it takes seconds and programs that only write text do not need it

    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Writes tensors and plain values with a version and a checksum.

    Raises:
        FedReIDError: if the folder is not writable or the disk is full; the old content is intact.
    """
    write_encoded(path, encode(state))


def write_encoded(path: Path, data: bytes) -> None:
    """Writes a state that `encode` has encoded, see `write_state`."""
    header = {
        "format": FORMAT,
        "version": VERSION,
        "written_by": __version__,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    write_bytes(path, json.dumps(header).encode() + b"\n" + data)


def read_state(path: Path) -> dict[str, Any]:
    """Reads a state that `write_state` wrote; tensors are loaded to the CPU, and no code in the file runs.

    The size of the file limits the memory: the header is short, and the content is not compressed.

    Raises:
        FedReIDError: if the file cannot be opened or read.
        NewerFormat: if a newer version of fedreid_pl wrote the file.
        DamagedFile: if the file is truncated, changed, too large, not a regular file, or of another format.
    """
    try:
        with _opened(path) as file:
            size, digest = _read_header(file, path)
            data = file.read(size + 1) if file.tell() + size == os.fstat(file.fileno()).st_size else b""
    except OSError as error:
        raise FedReIDError(f"{path}: cannot be read ({error.strerror})") from error
    if len(data) != size or hashlib.sha256(data).hexdigest() != digest:
        raise DamagedFile(f"{path}: is damaged (its checksum differs); use an earlier checkpoint")
    try:
        state = decode(data)
    except Exception as error:  # hostile content can raise any error
        raise DamagedFile(
            f"{path}: contains other objects than tensors and plain values ({type(error).__name__}); "
            "use a file that fedreid_pl wrote"
        ) from error
    if not isinstance(state, dict):
        raise DamagedFile(
            f"{path}: contains a {type(state).__name__}, expected a dictionary; use a file that fedreid_pl wrote"
        )
    return state


def check_format(path: Path) -> None:
    """Checks that this version can read the format of a file. It reads only the header; a damaged file passes.

    Raises:
        NewerFormat: if a newer version of fedreid_pl wrote the file; the message names the version.
    """
    try:
        with _opened(path) as file:
            _read_header(file, path)
    except (OSError, DamagedFile):
        return


def decode(data: bytes) -> Any:
    """Reads bytes of `torch.save`: tensors, loaded to the CPU, and plain values; no code in the bytes runs.

    The length of the bytes limits the memory: the function refuses archives with compressed or overlapping parts before
    it reads them.

    Raises:
        Exception: of any type, if the bytes contain anything else.
    """
    import torch

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = archive.infolist()
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        raise ValueError("the archive is compressed")
    if sum(part.file_size for part in parts) > len(data):
        raise ValueError("the parts of the archive overlap")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about unusual pickles before it refuses them
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    _check_sizes(state)
    return state


def _check_sizes(state: Any) -> None:
    """Raises for tensors with more numbers than their storage, and for states with too many parts."""
    import torch

    waiting, parts = [state], 0
    while waiting:
        item = waiting.pop()
        parts += 1
        if parts > MOST_PARTS:
            raise ValueError(f"the state has more than {MOST_PARTS:,} parts")
        if isinstance(item, torch.Tensor):
            if item.layout != torch.strided or item.is_meta:
                raise ValueError("a tensor is not dense")
            if item.numel() * item.element_size() > item.untyped_storage().nbytes():
                raise ValueError("a tensor is larger than its storage")
        elif isinstance(item, dict):
            waiting += [*item, *item.values()]
        elif isinstance(item, list | tuple | set | frozenset):
            waiting += item


def remove_leftovers(folder: Path) -> None:
    """Deletes temporary files of killed writers under `folder`. Only the owner of the run's lock may call it."""
    for path in folder.rglob(".*.tmp"):
        if not re.fullmatch(r"\..+\.\d+\.tmp", path.name):
            continue
        with suppress(OSError):
            path.unlink()


def _opened(path: Path) -> BinaryIO:
    """Opens a regular file of limited size; does not wait for pipes or devices."""
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0))
    file = open(number, "rb")  # noqa: SIM115 - the caller closes it
    state = os.fstat(number)
    if not stat.S_ISREG(state.st_mode) or state.st_size > MOST_BYTES:
        file.close()
        raise DamagedFile(f"{path}: is not a regular file, or has more than {MOST_BYTES:,} bytes")
    return file


def _read_header(file: BinaryIO, path: Path) -> tuple[int, str]:
    """Returns length in bytes and SHA-256 of the content."""
    try:
        header = json.loads(file.readline(LONGEST_HEADER))
        known = header["format"] == FORMAT
        version, size, digest = int(header["version"]), int(header["bytes"]), str(header["sha256"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        known = False
    if not known or size < 0:
        raise DamagedFile(f"{path}: is not a checkpoint of fedreid_pl")
    if version > VERSION:
        writer = printable(str(header.get("written_by", "a newer version")), 40)
        raise NewerFormat(
            f"{path}: has format {version} and was written by fedreid_pl {writer}; this is fedreid_pl {__version__}, "
            f"which reads formats up to {VERSION}. Upgrade fedreid_pl. No file was changed"
        )
    return size, digest
