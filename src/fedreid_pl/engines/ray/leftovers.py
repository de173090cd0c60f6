"""Ends the processes that Ray leaves behind after its driver was killed; the next run finds them by their session."""

from __future__ import annotations

import json
import os
import signal
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MARK = "fedreid_pl.json"


def marked_sessions() -> Iterator[tuple[Path, int, int]]:
    """Yields (folder, driver's process id, driver's start tick) of each Ray session that a run of this user marked."""
    place = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"  # as Ray chooses it
    for mark in sorted((Path(place) / "ray").glob(f"session_*/{MARK}")):
        try:
            state = mark.lstat()
            if not stat.S_ISREG(state.st_mode) or state.st_uid != os.getuid() or state.st_size > 1000:
                continue
            found = json.loads(mark.read_text(encoding="ascii"))
            driver, started = int(found["driver"]), int(found["started"])
        except (OSError, ValueError, LookupError, TypeError, OverflowError):
            continue
        if not mark.parent.is_symlink():  # session_latest
            yield mark.parent, driver, started


def mark_session(folder: str) -> None:
    """Writes the id and the start tick of this process, the driver, into the folder of a Ray session."""
    with suppress(OSError):
        text = json.dumps({"driver": os.getpid(), "started": _started(os.getpid())})
        Path(folder, MARK).write_text(text + "\n", encoding="ascii")


def end_leftovers() -> list[int]:
    """Ends the processes of Ray sessions whose driver no longer runs; returns the ids of the ended processes.

    After a SIGKILL of the driver, two agents of Ray run for ever. A session is left over only if its folder has the
    mark of a driver of the same user, and this driver no longer runs. A process belongs to a session if one of its
    open files lies in the session's folder.
    """
    ended = []
    for folder, driver, started in marked_sessions():
        if _started(driver) == started:
            continue
        for number in processes_of(folder):
            with suppress(OSError):
                os.kill(number, signal.SIGKILL)
                ended.append(number)
        with suppress(OSError):
            (folder / MARK).unlink()
    return ended


def processes_of(folder: Path) -> Iterator[int]:
    """Yields the ids of the user's processes, except this one, that have a file in a session's folder open."""
    inside = f"{folder.resolve()}/"
    for entry in Path("/proc").glob("[0-9]*"):
        if int(entry.name) == os.getpid():
            continue
        with suppress(OSError):
            if entry.stat().st_uid == os.getuid() and any(
                os.readlink(link).startswith(inside) for link in (entry / "fd").iterdir()
            ):
                yield int(entry.name)


def _started(number: int) -> int:
    """Returns the clock tick at which a process started; 0 if there is no such process."""
    try:
        text = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace")
        return int(text.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0
