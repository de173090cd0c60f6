"""Coordinator and silos as processes that are restarted after a crash, as a service manager does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Nursery:
    """Controls the process that forks all others; see nursery.py."""

    def __init__(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("nursery.py"))]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1)
        self._lock = threading.Lock()

    def start(self, words: list[str], log: Path, **more: Any) -> int:
        """Starts `fedreid-pl WORDS` and returns the process id. nursery.py describes `more`."""
        return self._ask({"words": words, "log": str(log), **more})

    def reap(self, process: int) -> int:
        """Returns the exit code of a process that has ended or is about to end."""
        return self._ask({"reap": process})

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(300)  # on a busy machine many processes end slowly

    def _ask(self, asked: dict) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(asked) + "\n")
            return int(json.loads(self._process.stdout.readline()))


class Service:
    """One party's process; it is restarted unless it ends with exit code 0 or 2.

    Attributes:
        starts: number of starts.
        away: whether restarts are suspended.
        code: the final exit code, `None` while the process runs.
    """

    def __init__(self, nursery: Nursery, words: list[str], log: Path, **more: Any) -> None:
        self.nursery, self.words, self.log, self.more = nursery, words, log, more
        self.starts, self.code, self.away = 1, None, False  # type: int, int | None, bool
        self.process = nursery.start(words, log, **more)

    def look(self) -> None:
        """Restarts the process if it was killed, unless `away` is set."""
        if self.code is not None or self.away or not _ended(self.process):
            return
        code = self.nursery.reap(self.process)
        if code in (0, 2):
            self.code = code
            return
        self.process = self.nursery.start(self.words, self.log, **self.more)
        self.starts += 1

    def kill(self) -> None:
        """Kills the process with SIGKILL."""
        os.kill(self.process, signal.SIGKILL)

    def stop(self) -> None:
        """Kills the process and never restarts it."""
        if self.code is None:
            os.kill(self.process, signal.SIGKILL)
            self.code = self.nursery.reap(self.process)


def _ended(process: int) -> bool:
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return True
    return text.rpartition(")")[2].split()[0] == "Z"


def watch(
    services: list[Service], done: Callable[[], bool], limit: float, each: Callable[[], None] | None = None
) -> None:
    """Restarts killed services until `done()`; after `limit` seconds, fails with the end of their logs."""
    end = time.monotonic() + limit
    while not done():
        for service in services:
            service.look()
        if each is not None:
            each()
        if time.monotonic() > end:
            raise AssertionError("\n".join(f"{item.log}: {item.log.read_text()[-1500:]}" for item in services))
        time.sleep(0.02)


def listening(process: int) -> list[tuple[str, int]]:
    """Reads from /proc the (address, port) of every TCP socket that a process listens on."""
    sockets = set()
    for item in Path(f"/proc/{process}/fd").iterdir():
        try:
            target = os.readlink(item)
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            sockets.add(target[8:-1])
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
            parts = line.split()
            if parts[3] == "0A" and parts[9] in sockets:
                address, _, port = parts[1].partition(":")
                last = bytes.fromhex(address)[-4:][::-1]  # also for IPv4-mapped IPv6 addresses
                found.append((".".join(map(str, last)), int(port, 16)))
    return found
