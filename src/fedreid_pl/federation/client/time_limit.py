"""Limits the duration of a client's turn."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any

import pytorch_lightning as pl

GRACE = 1.0  # seconds that a batch has to finish before the alarm
AGAIN = 10.0  # seconds until the next alarm, if other code has caught the first exception


class TurnTimeout(Exception):
    """Raised if a turn takes longer than its limit."""


class TimeLimit(pl.Callback):
    """Stops a turn that takes longer than `seconds`; a context manager around the turn and a callback inside it.

    Two clocks measure the turn. After every batch the callback compares the elapsed time with the limit. If a batch
    does not finish, an alarm (SIGALRM) interrupts Python code such as a sleep, a read, or a wait for a process of the
    data loader, one second or a tenth of the limit later, whichever is longer. The alarm cannot interrupt native code
    that does not return, such as a stuck GPU kernel. It works only in the main thread of systems that have SIGALRM.

    Which turns finish in time depends on the machine. A run in which a turn was stopped is therefore not reproducible
    bit by bit.

    Args:
        seconds: longest duration of a turn in seconds; `None` sets no limit.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds = seconds
        self._deadline: float | None = None
        self._armed = False
        self._before: Any = None

    def __enter__(self) -> TimeLimit:
        if self.seconds is None:
            return self
        self._deadline = time.monotonic() + self.seconds
        self._armed = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
        if self._armed:
            self._before = signal.signal(signal.SIGALRM, self._ring)
            signal.setitimer(signal.ITIMER_REAL, self.seconds + max(GRACE, self.seconds / 10), AGAIN)
        return self

    def __exit__(self, *error: object) -> None:
        if self._armed:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before)
        self._deadline, self._armed = None, False

    def on_train_batch_end(self, *parts: Any, **named: Any) -> None:
        """Raises `TurnTimeout` if the limit has passed."""
        self._look()

    def on_test_batch_end(self, *parts: Any, **named: Any) -> None:
        """Raises `TurnTimeout` if the limit has passed."""
        self._look()

    def _look(self) -> None:
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise TurnTimeout(self._text())

    def _ring(self, number: int, frame: FrameType | None) -> None:
        raise TurnTimeout(self._text() + "; it was stopped within a batch")

    def _text(self) -> str:
        return f"the turn takes longer than client_timeout={self.seconds:g} seconds"
