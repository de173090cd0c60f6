"""Files that are either whole or not there, and cannot run code when they are read."""

from __future__ import annotations

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
"""Name and number of the format. The number rises when an older fedreid_pl could not go on from a file:

1. the first; 2. the header names the version that wrote the file.
"""
MOST_BYTES = 8 * 1024**3  # of one file
MOST_PARTS = 1_000_000  # tensors, numbers and containers of one state
LONGEST_HEADER = 4096  # bytes; what is longer is none


class DamagedFile(FedReIDError):
    """A file that is truncated, altered, or not of this format."""


class NewerFormat(FedReIDError):
    """A file of a newer format; nothing of its run may be written over."""


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file atomically: a reader, also after a kill or a power cut, finds the old or the new content.

    Raises:
        FedReIDError: if the folder cannot be written to or the disk is full; the old content is intact.
    """
    try:
        with made_whole(path) as temporary, open(temporary, "wb") as file:
            file.write(data)
    except OSError as error:
        raise FedReIDError(
            f"{path}: cannot be written ({error.strerror or error}); what was saved before is intact, "
            "make room or choose another output_dir"
        ) from error


def write_text(path: Path, text: str) -> None:
    """`write_bytes` for text in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def encode(state: dict[str, Any]) -> bytes:
    """Returns tensors and plain values as the bytes that `decode` reads."""
    import torch  # not above: text files are written where nothing else needs it, and it takes seconds to import

    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Writes tensors and plain values with a version and a checksum; raises as `write_bytes`."""
    write_encoded(path, encode(state))


def write_encoded(path: Path, data: bytes) -> None:
    """`write_state` for a state that is encoded already."""
    header = {
        "format": FORMAT,
        "version": VERSION,
        "written_by": __version__,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    write_bytes(path, json.dumps(header).encode() + b"\n" + data)


def read_state(path: Path) -> dict[str, Any]:
    """Reads what `write_state` wrote; tensors come to the CPU and nothing in the file is executed.

    Memory is bounded by the size of the file: the header is short, and the content is not compressed.

    Raises:
        FedReIDError: if the file cannot be read.
        NewerFormat: if a newer fedreid_pl wrote it.
        DamagedFile: if it is truncated, altered, no regular file, too long, or of another format.
    """
    try:
        with _opened(path) as file:
            size, digest = _read_header(file, path)
            data = file.read(size + 1) if file.tell() + size == os.fstat(file.fileno()).st_size else b""
    except OSError as error:
        raise FedReIDError(f"{path}: cannot be read ({error.strerror})") from error
    if len(data) != size or hashlib.sha256(data).hexdigest() != digest:
        raise DamagedFile(f"{path}: is damaged (checksum differs); use an earlier checkpoint")
    try:
        state = decode(data)
    except Exception as error:  # whatever its writer put there
        raise DamagedFile(f"{path}: holds more than tensors and plain values ({type(error).__name__})") from error
    if not isinstance(state, dict):
        raise DamagedFile(f"{path}: holds {type(state).__name__} in place of a state")
    return state


def check_format(path: Path) -> None:
    """Refuses a file of a newer format; only its header is read, and a file that is damaged passes.

    Raises:
        NewerFormat: naming the version that wrote it.
    """
    try:
        with _opened(path) as file:
            _read_header(file, path)
    except (OSError, DamagedFile):
        return


def decode(data: bytes) -> Any:
    """Reads bytes of `torch.save`: tensors, on the CPU, and plain values; nothing in them is executed.

    Memory is bounded by their length: archives with compressed or overlapping parts are refused before anything
    is read.

    Raises:
        Exception: of any kind, if the bytes hold anything else.
    """
    import torch

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = archive.infolist()
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        raise ValueError("a compressed archive")
    if sum(part.file_size for part in parts) > len(data):
        raise ValueError("an archive of overlapping parts")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch remarks on odd pickles before it refuses them
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    _check_sizes(state)
    return state


def _check_sizes(state: Any) -> None:
    """Refuses tensors that stand for more numbers than their file holds, and states of too many parts."""
    import torch

    waiting, parts = [state], 0
    while waiting:
        item = waiting.pop()
        parts += 1
        if parts > MOST_PARTS:
            raise ValueError("a state of too many parts")
        if isinstance(item, torch.Tensor):
            if item.layout != torch.strided or item.is_meta:
                raise ValueError("a tensor that is not dense")
            if item.numel() * item.element_size() > item.untyped_storage().nbytes():
                raise ValueError("a tensor that is larger than its storage")
        elif isinstance(item, dict):
            waiting += [*item, *item.values()]
        elif isinstance(item, list | tuple | set | frozenset):
            waiting += item


def remove_leftovers(folder: Path) -> None:
    """Deletes what writers that were killed have left under `folder`; only for whom holds the run's lock."""
    for path in folder.rglob(".*.tmp"):
        if not re.fullmatch(r"\..+\.\d+\.tmp", path.name):
            continue
        with suppress(OSError):
            path.unlink()


def _opened(path: Path) -> BinaryIO:
    """A regular file of bounded size; a pipe or a device is not waited for."""
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0))
    file = open(number, "rb")  # noqa: SIM115 - the caller closes it
    state = os.fstat(number)
    if not stat.S_ISREG(state.st_mode) or state.st_size > MOST_BYTES:
        file.close()
        raise DamagedFile(f"{path}: is no regular file, or has more than {MOST_BYTES:,} bytes")
    return file


def _read_header(file: BinaryIO, path: Path) -> tuple[int, str]:
    """Length and SHA-256 of the content."""
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
            f"{path}: has format {version} and was written by fedreid_pl {writer}; this is {__version__}, which reads "
            f"formats up to {VERSION}. Upgrade fedreid_pl; nothing was changed"
        )
    return size, digest
