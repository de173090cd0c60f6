"""Where wandb keeps its files: beside the run when there is no home, and whether an offline run is whole."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wandb.proto import wandb_internal_pb2

BLOCK, HEADER = 32768, 7  # bytes, of LevelDB's log format
WHOLE, LAST = 1, 4  # kinds of pieces that end a record


@contextmanager
def wandb_surroundings(folder: Path) -> Iterator[None]:
    """Lets wandb's service start where the home cannot be written or is not known, and without reports of its own.

    Its log, cache and staged files then go into the run's `wandb` folder. wandb does not report errors and usage
    to its makers unless `WANDB_ERROR_REPORTING` says so.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    borrowed = {}
    if not _home_is_writable():
        os.environ.setdefault("WANDB_DATA_DIR", str(folder / "wandb" / "data"))
        os.environ.setdefault("WANDB_CACHE_DIR", str(folder / "wandb" / "cache"))
        os.environ.setdefault("WANDB_CONFIG_DIR", str(folder / "wandb" / "config"))
        borrowed = {"XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME")}  # the service's log; not ours to keep
        os.environ["XDG_CACHE_HOME"] = str(folder / "wandb" / "cache")
    try:
        yield
    finally:
        for name, value in borrowed.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def becomes_whole(run_file: Path, seconds: float = 10.0) -> bool:
    """Whether the file is whole, at once or within so many seconds: the service writes it out after the run's end."""
    limit = time.monotonic() + seconds
    while not is_whole(run_file):
        if time.monotonic() > limit:
            return False
        time.sleep(0.05)
    return True


def is_whole(run_file: Path) -> bool:
    """Whether the file of an offline run ends as a finished run's does.

    wandb's service says nothing when it cannot write, as on a full disk; the file then ends early.
    """
    try:
        content = run_file.read_bytes()
    except OSError:
        return False
    place, record, last = HEADER, b"", b""
    while place + HEADER <= len(content):
        if BLOCK - place % BLOCK < HEADER:  # no room for a header: the block is padded
            place += BLOCK - place % BLOCK
            continue
        size, kind = struct.unpack("<HB", content[place + 4 : place + HEADER])
        record += content[place + HEADER : place + HEADER + size]
        place += HEADER + size
        if kind in (WHOLE, LAST):
            last, record = record, b""
    if place > len(content) or not last:
        return False
    parsed = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
    try:
        parsed.ParseFromString(last)
    except Exception:  # protobuf's DecodeError, or what a damaged length makes of it
        return False
    return parsed.WhichOneof("record_type") == "exit"


def _home_is_writable() -> bool:
    home = os.environ.get("HOME")
    if not home:
        return False
    places = [Path(os.environ.get("XDG_CACHE_HOME") or Path(home, ".cache")), Path(home, ".local", "share", "wandb")]
    for place in places:
        while not os.path.lexists(place) and place != place.parent:
            place = place.parent
        if not (place.is_dir() and os.access(place, os.W_OK)):
            return False
    return True
