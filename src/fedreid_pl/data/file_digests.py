"""SHA-256 of files with a cache by path, size and time, so that unchanged files are hashed only once."""

from __future__ import annotations

import functools
import hashlib
import os
import time
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from fedreid_pl.data.cache_folder import made_whole
from fedreid_pl.data.decoding import in_blocks

SETTLED = 2.0  # seconds; a file that changed more recently may change again without a new time stamp
SIZE = 32  # bytes of a digest
WORTH_SAYING = 5_000  # number of files from which progress is shown; fewer files are hashed in a moment

Progress = Callable[[str], None]


def file_digests(files: Sequence[str], cache: Path, progress: Progress | None = None) -> np.ndarray:
    """Returns the SHA-256 of every file, `[N, 32]` uint8; zeros for a file that is empty or cannot be read.

    If size, time and inode of a file have not changed, its digest is read from the cache.

    Args:
        files: different paths, in any order.
        cache: the program's cache folder. If it cannot be read or written, all files are hashed again.
        progress: called with a short text from time to time.
    """
    started = time.time()
    digests = np.zeros((len(files), SIZE), np.uint8)
    states = _states(files)
    place = cache / "digests" / f"{_key(files)}.npz"
    todo = states[:, 2] > 0
    if (known := _load(place, len(files))) is not None:
        same = todo & (known[0] == states).all(1)
        digests[same] = known[1][same]
        todo &= ~same
    rows = np.flatnonzero(todo)
    if not len(rows):
        return digests
    note = None
    if progress is not None and len(rows) >= WORTH_SAYING:
        note = functools.partial(_say, progress, len(rows))
    found = in_blocks(len(rows), lambda part: [_digest(files[rows[number]]) for number in part], note)
    digests[rows] = np.frombuffer(b"".join(found), np.uint8).reshape(-1, SIZE)
    settled = states[:, 0] < (started - SETTLED) * 1e9
    with suppress(OSError):
        _save(place, np.where(settled[:, None], states, -1), digests)
    return digests


def _say(progress: Progress, count: int, done: int) -> None:
    progress(f"{done:,} of {count:,} files checked for duplicates")


def _digest(file: str) -> bytes:
    try:
        with open(file, "rb") as stream:
            return hashlib.sha256(stream.read()).digest()
    except OSError:
        return bytes(SIZE)  # decoding raises the error for this file


def _states(files: Sequence[str]) -> np.ndarray:
    """Returns time of the last change, inode and size of every file, `[N, 3]` int64; zeros for a missing file."""
    rows = []
    for file in files:
        try:
            state = os.stat(file)
        except (OSError, ValueError):
            rows.append((0, 0, 0))
        else:
            rows.append((state.st_mtime_ns, state.st_ino & (2**63 - 1), state.st_size))
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


def _key(files: Sequence[str]) -> str:
    text = "\0".join([os.getcwd(), *files])  # paths may be relative
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _load(place: Path, count: int) -> tuple[np.ndarray, np.ndarray] | None:
    try:
        with np.load(place, allow_pickle=False) as content:
            states, digests = content["states"], content["digests"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # the cache file is missing or damaged
    fits = states.shape == (count, 3) and digests.shape == (count, SIZE) and digests.dtype == np.uint8
    return (states, digests) if fits else None


def _save(place: Path, states: np.ndarray, digests: np.ndarray) -> None:
    with made_whole(place) as temporary, open(temporary, "wb") as file:
        np.savez(file, states=states, digests=digests)
