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
    """Lets `AT_ONCE` transfers pass at a time, and one of each silo.

    A slow transfer makes room for others after `SLICE`. One that does not move at all cannot notice that; it loses
    its turn after twice as long. A silo that begins another transfer loses the turn of the one before, whose
    connection may be dead.

    Args:
        at_once: how many.
        seconds: after which a transfer is over if others wait.
    """

    def __init__(self, at_once: int = AT_ONCE, seconds: float = SLICE) -> None:
        self._at_once, self._seconds = at_once, seconds
        self._changed, self._waiting = threading.Condition(), 0
        self._turns: dict[str, float] = {}  # by silo when its turn began

    @contextmanager
    def turn(self, silo: str, size: int, alive: Callable[[], bool]) -> Iterator[Callable[[], bool]]:
        """Waits for a turn; yields a function that says whether the turn is over.

        Args:
            silo: whose transfer it is.
            size: bytes of the transfer; a small one does not wait.
            alive: whether the caller is still there; if not, the turn is over at once.
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
        """Waits for a place; returns when the turn began, `None` if the caller is gone."""
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
    """Yields pieces until the turn is over."""
    while not over():
        try:
            yield next(pieces)
        except StopIteration:
            return
