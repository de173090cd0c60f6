"""A TCP proxy in front of the coordinator, with one port for each silo, that disturbs connections on command.

    python tests/silos/tcp_proxy.py CONTROL TARGET PORT=SILO ...

The proxy forwards encrypted bytes and has no key. The file CONTROL contains `{"kind": KIND, "silos": [NAME, ...]}`:

drop        discards all bytes in both directions and leaves the connections open
delay       forwards every byte two seconds later
cut         closes a connection after some ten thousand bytes, in the middle of most messages
slow        forwards 64 KiB a second
duplicate   forwards every byte twice
"""

from __future__ import annotations

import json
import queue
import random
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

KINDS = ("drop", "delay", "cut", "slow", "duplicate")
CHUNK, DELAY, RATE = 16384, 2.0, 65536


class Harm:
    """The current disturbance of a silo's connections; the file is read again when it changes."""

    def __init__(self, control: Path) -> None:
        self._control, self._seen, self._kind = control, 0.0, ("", frozenset[str]())

    def of(self, silo: str) -> str:
        """Returns the kind of disturbance, or an empty string."""
        with suppress(OSError, ValueError):
            changed = self._control.stat().st_mtime_ns
            if changed != self._seen:
                found = json.loads(self._control.read_text())
                self._kind, self._seen = (found["kind"], frozenset(found["silos"])), changed
        kind, silos = self._kind
        return kind if silo in silos else ""


class Pipe:
    """One direction of a connection.

    Args:
        source, target: the sockets to read from and to write to.
        silo: name of the silo that opened the connection.
        harm: the current disturbance.
    """

    def __init__(self, source: socket.socket, target: socket.socket, silo: str, harm: Harm) -> None:
        self.source, self.target, self.silo, self.harm = source, target, silo, harm
        self._later: queue.Queue[tuple[float, bytes]] = queue.Queue()
        self._budget = random.Random().randint(3_000, 200_000)
        for work in (self._read, self._write):
            threading.Thread(target=self._until_broken, args=(work,), daemon=True).start()

    def _until_broken(self, work: object) -> None:
        with suppress(OSError):
            work()  # type: ignore[operator]
        for end in (self.source, self.target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _read(self) -> None:
        while data := self.source.recv(CHUNK):
            delayed = self.harm.of(self.silo) == "delay"
            self._later.put((time.monotonic() + DELAY * delayed, data))
        self._later.put((0.0, b""))

    def _write(self) -> None:
        while True:
            due, data = self._later.get()
            if not data:
                return
            time.sleep(max(0.0, due - time.monotonic()))
            while (kind := self.harm.of(self.silo)) == "drop":
                time.sleep(0.02)
            if kind == "cut":
                self._budget -= len(data)
                if self._budget < 0:
                    self.target.sendall(data[: len(data) // 2])
                    return
            if kind == "slow":
                time.sleep(len(data) / RATE)
            self.target.sendall(data)
            if kind == "duplicate":
                self.target.sendall(data)


def accept(listener: socket.socket, target: int, silo: str, harm: Harm) -> None:
    """Accepts a silo's connections."""
    while True:
        near, _ = listener.accept()
        try:
            far = socket.create_connection(("127.0.0.1", target), timeout=5)
        except OSError:
            near.close()
            continue
        far.settimeout(None)
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        Pipe(near, far, silo, harm), Pipe(far, near, silo, harm)


def main(words: list[str]) -> int:
    """Serves until the process is killed."""
    harm, target = Harm(Path(words[0])), int(words[1])
    for word in words[2:]:
        port, _, silo = word.partition("=")
        listener = socket.create_server(("127.0.0.1", int(port)))
        threading.Thread(target=accept, args=(listener, target, silo, harm), daemon=True).start()
    threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
