"""Delays SIGINT and SIGTERM while Ray's own code runs."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

HELD = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def held_signals() -> Iterator[None]:
    """Delays SIGINT (Ctrl-C) and SIGTERM until the end of the block, then calls the handler of the first signal.

    An exception from a handler inside a call into Ray becomes a SystemError with a traceback. In other threads than
    the main thread this function does nothing, because Python runs signal handlers in the main thread only.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    before: dict[int, Any] = {
        number: signal.signal(number, lambda number, frame: came.append((number, frame))) for number in HELD
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number, frame in came[:1]:
            handler = before[number]
            if callable(handler):
                handler(number, frame)
            elif handler == signal.SIG_DFL:
                os.kill(os.getpid(), number)
