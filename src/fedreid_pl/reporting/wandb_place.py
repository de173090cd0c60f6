"""Places wandb's files next to the run if there is no home folder, and checks that an offline run is complete."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wandb.proto import wandb_internal_pb2

BLOCK, HEADER = 32768, 7  # bytes; sizes in LevelDB's log format
WHOLE, LAST = 1, 4  # types of fragments that end a record


@contextmanager
def wandb_surroundings(folder: Path) -> Iterator[None]:
    """Lets wandb's service start if the home folder is unknown or not writable, and turns off wandb's error reports.

    In that case the service's log, cache and staged files are written to the run's `wandb` folder. wandb sends no
    reports of errors and usage to its makers, unless `WANDB_ERROR_REPORTING` is set.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    borrowed = {}
    if not _home_is_writable():
        os.environ.setdefault("WANDB_DATA_DIR", str(folder / "wandb" / "data"))
        os.environ.setdefault("WANDB_CACHE_DIR", str(folder / "wandb" / "cache"))
        os.environ.setdefault("WANDB_CONFIG_DIR", str(folder / "wandb" / "config"))
        borrowed = {"XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME")}  # needed for the service's log; restored below
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
    """Returns whether the file is complete now or within `seconds`: the service writes it after the end of the run."""
    limit = time.monotonic() + seconds
    while not is_whole(run_file):
        if time.monotonic() > limit:
            return False
        time.sleep(0.05)
    return True


def is_whole(run_file: Path) -> bool:
    """Returns whether the file of an offline run ends with the record of a finished run.

    wandb's service reports no error if it cannot write, as on a full disk; the file then ends early.
    """
    try:
        content = run_file.read_bytes()
    except OSError:
        return False
    place, record, last = HEADER, b"", b""
    while place + HEADER <= len(content):
        if BLOCK - place % BLOCK < HEADER:  # the rest of the block is too short for a header and is padded
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
    except Exception:  # protobuf's DecodeError, or another error after a damaged length
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
