"""Limits the number of simultaneous large transfers, so that memory does not grow with the number of silos."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fedreid_pl.engines.silos.payload import PIECE

AT_ONCE = 4
SLICE = 20.0  # seconds after which a transfer pauses if another one waits; it resumes later at the same byte


class Turns:
    """Allows `AT_ONCE` transfers at a time, and one transfer for each silo.

    A slow transfer gives up its turn after `SLICE` seconds if another transfer waits. A transfer that is stuck cannot
    do so; it loses its turn after twice that time. If a silo starts a new transfer, its earlier transfer loses its
    turn, because the earlier connection may be dead.

    Args:
        at_once: largest number of simultaneous transfers.
        seconds: seconds after which a transfer gives up its turn if others wait.
    """

    def __init__(self, at_once: int = AT_ONCE, seconds: float = SLICE) -> None:
        self._at_once, self._seconds = at_once, seconds
        self._changed, self._waiting = threading.Condition(), 0
        self._turns: dict[str, float] = {}  # start of the current turn, by silo

    @contextmanager
    def turn(self, silo: str, size: int, alive: Callable[[], bool]) -> Iterator[Callable[[], bool]]:
        """Waits for a turn; yields a function that returns whether the turn is over.

        Args:
            silo: name of the silo that the transfer belongs to.
            size: bytes of the transfer; a transfer of at most one piece does not wait.
            alive: returns whether the caller is still connected; otherwise the turn is over at once.
        """
        if size <= PIECE:
            yield lambda: False
            return
        if (begun := self._begin(silo, alive)) is None:
            yield lambda: True
            return
        try:
            yield lambda: self._over(silo, begun)
        finally:
            with self._changed:
                if self._turns.get(silo) == begun:
                    del self._turns[silo]
                self._changed.notify_all()

    def _over(self, silo: str, begun: float) -> bool:
        lost = self._turns.get(silo) != begun
        return lost or (self._waiting > 0 and time.monotonic() - begun > self._seconds)

    def _begin(self, silo: str, alive: Callable[[], bool]) -> float | None:
        """Waits for a turn; returns the time at which it starts, `None` if the caller has disconnected."""
        with self._changed:
            self._waiting += 1
            try:
                while alive():
                    self._turns.pop(silo, None)
                    now = time.monotonic()
                    if len(self._turns) >= self._at_once:
                        oldest = min(self._turns, key=self._turns.__getitem__)
                        if now - self._turns[oldest] > 2 * self._seconds:
                            del self._turns[oldest]
                    if len(self._turns) < self._at_once:
                        self._turns[silo] = now
                        return now
                    self._changed.wait(0.5)
                return None
            finally:
                self._waiting -= 1


def until(pieces: Iterator[bytes], over: Callable[[], bool]) -> Iterator[bytes]:
    """Yields the pieces of a transfer until `over` returns `True`."""
    while not over():
        try:
            yield next(pieces)
        except StopIteration:
            return
