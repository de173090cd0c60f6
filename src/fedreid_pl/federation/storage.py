"""Files that are either whole or not there, and cannot run code when they are read."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import warnings
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from fedreid_pl.data.cache_folder import made_whole
from fedreid_pl.errors import FedReIDError

FORMAT, VERSION = "fedreid_pl", 1
LONGEST_HEADER = 4096  # bytes; what is longer is none


class DamagedFile(FedReIDError):
    """A file that is truncated, altered, or not of this format."""


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


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Writes tensors and plain values with a version and a checksum; raises as `write_bytes`."""
    import torch  # not above: text files are written where nothing else needs it, and it takes seconds to import

    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    header = {"format": FORMAT, "version": VERSION, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    write_bytes(path, json.dumps(header).encode() + b"\n" + data)


def read_state(path: Path) -> dict[str, Any]:
    """Reads what `write_state` wrote; tensors come to the CPU and nothing in the file is executed.

    Memory is bounded by the size of the file: the header is short, and the content is not compressed.

    Raises:
        FedReIDError: if the file cannot be read.
        DamagedFile: if it is truncated, altered, of another format or of a newer version.
    """
    try:
        with open(path, "rb") as file:
            version, size, digest = _read_header(file, path)
            if version > VERSION:
                raise DamagedFile(f"{path}: is of version {version}, this fedreid_pl reads up to {VERSION}; upgrade it")
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
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def remove_leftovers(folder: Path) -> None:
    """Deletes what writers that were killed have left under `folder`; only for whom holds the run's lock."""
    for path in folder.rglob(".*.tmp"):
        if not re.fullmatch(r"\..+\.\d+\.tmp", path.name):
            continue
        with suppress(OSError):
            path.unlink()


def _read_header(file: BinaryIO, path: Path) -> tuple[int, int, str]:
    try:
        header = json.loads(file.readline(LONGEST_HEADER))
        known = header["format"] == FORMAT
        version, size, digest = int(header["version"]), int(header["bytes"]), str(header["sha256"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        known = False
    if not known or size < 0:
        raise DamagedFile(f"{path}: is not a checkpoint of fedreid_pl")
    return version, size, digest
