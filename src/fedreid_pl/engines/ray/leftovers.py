"""Processes that Ray leaves behind when a driver is killed: found by their session, ended by the next start."""

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
    """Yields (folder, id of the driver, its start) of the sessions on this machine that the user's runs have marked."""
    for mark in sorted((Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray").glob(f"session_*/{MARK}")):
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
    """Notes in a session's folder which process has started it."""
    with suppress(OSError):
        text = json.dumps({"driver": os.getpid(), "started": _started(os.getpid())})
        Path(folder, MARK).write_text(text + "\n", encoding="ascii")


def end_leftovers() -> list[int]:
    """Ends what sessions have left whose driver, a run of this program, is gone; returns the ids of the processes.

    After a SIGKILL of the driver two agents of Ray stay for ever. A session counts as left over only if its folder
    has the mark of a driver of the same user that is no longer there. A process belongs to it if one of its open
    files lies in the session's folder.
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
    """Yields the ids of the user's processes that have a file of a session's folder open, but for this one."""
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
    """The clock tick of the system at which a process was started; 0 if it is not there."""
    try:
        text = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace")
        return int(text.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0
