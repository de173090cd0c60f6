"""Few large transfers at a time, so that the coordinator's memory does not grow with the number of silos."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fedreid_pl.engines.silos.payload import PIECE

AT_ONCE = 4
SLICE = 20.0  # seconds after which a transfer makes room for one that waits; it goes on later where it ended


class Turns:
    """Lets `AT_ONCE` transfers pass at a time; a slow one does not hold up the others for longer than `SLICE`.

    Args:
        at_once: how many.
        seconds: after which a transfer is over if others wait.
    """

    def __init__(self, at_once: int = AT_ONCE, seconds: float = SLICE) -> None:
        self._free, self._seconds = threading.Semaphore(at_once), seconds
        self._lock, self._waiting = threading.Lock(), 0

    @contextmanager
    def turn(self, size: int, alive: Callable[[], bool]) -> Iterator[Callable[[], bool]]:
        """Waits for a turn; yields a function that says whether the turn is over.

        Args:
            size: bytes of the transfer; a small one does not wait.
            alive: whether the caller is still there; if not, the turn is over at once.
        """
        if size <= PIECE:
            yield lambda: False
            return
        if not self._acquire(alive):
            yield lambda: True
            return
        begun = time.monotonic()
        try:
            yield lambda: self._waiting > 0 and time.monotonic() - begun > self._seconds
        finally:
            self._free.release()

    def _acquire(self, alive: Callable[[], bool]) -> bool:
        with self._lock:
            self._waiting += 1
        try:
            while alive():
                if self._free.acquire(timeout=0.5):
                    return True
            return False
        finally:
            with self._lock:
                self._waiting -= 1


def until(pieces: Iterator[bytes], over: Callable[[], bool]) -> Iterator[bytes]:
    """Yields pieces until the turn is over."""
    while not over():
        try:
            yield next(pieces)
        except StopIteration:
            return
