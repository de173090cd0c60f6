"""A limit on the time that a client's turn may take."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any

import pytorch_lightning as pl

GRACE = 1.0  # seconds for a batch to end by itself before the alarm
AGAIN = 10.0  # seconds until the alarm rings again, should the first have been swallowed


class TurnTimeout(Exception):
    """A turn took too long."""


class TimeLimit(pl.Callback):
    """Ends a turn that takes longer than `seconds`; a context manager around the turn and a callback inside it.

    Two clocks watch. After every batch the time is looked at: a turn that is slow ends there. Where no batch comes
    to its end an alarm (SIGALRM) rings a second or a tenth of the limit later and interrupts whatever Python does:
    a sleep, a read, a wait for a loader's process. It cannot interrupt a call into native code that never comes
    back, such as a stuck GPU kernel, and there is no alarm outside of the main thread or where the system has none.

    Which turns end in time depends on the machine, so a run in which the limit strikes is not repeatable bit by bit.

    Args:
        seconds: that a turn may take; `None`: as long as it likes.
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
        """Looks at the clock."""
        self._look()

    def on_test_batch_end(self, *parts: Any, **named: Any) -> None:
        """Looks at the clock."""
        self._look()

    def _look(self) -> None:
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise TurnTimeout(self._text())

    def _ring(self, number: int, frame: FrameType | None) -> None:
        raise TurnTimeout(self._text() + ", within a batch")

    def _text(self) -> str:
        return f"the turn takes longer than client_timeout={self.seconds:g} seconds"
