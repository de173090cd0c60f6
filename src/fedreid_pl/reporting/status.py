"""Prints the current activity in one line, and formats durations. Imports no torch, so that it can print at once."""

from __future__ import annotations

import math
import sys
import time
from typing import TextIO

from fedreid_pl.reporting.terminal import clip, columns, is_live

EVERY = 10.0  # seconds between two lines in a file


class Status:
    """Prints short texts that may change often: a terminal shows the newest, a file gets one every ten seconds.

    Args:
        stream: output stream, by default stderr.
        after: seconds before a file gets its first line; shorter activities leave no line.
    """

    def __init__(self, stream: TextIO | None = None, after: float = 0.0) -> None:
        self.stream = stream or sys.stderr
        self.live = is_live(self.stream)
        self._said = time.monotonic() + after - EVERY if after else -math.inf

    def __call__(self, text: str) -> None:
        """Shows the text."""
        now = time.monotonic()
        if self.live:
            self.stream.write(f"\r\x1b[K{clip(text, (columns(self.stream) or 80) - 1)}")
        elif now - self._said > EVERY:
            self._said = now
            self.stream.write(text + "\n")
        self.stream.flush()

    def done(self) -> None:
        """Clears the last text in a terminal."""
        if self.live:
            self.stream.write("\r\x1b[K")
            self.stream.flush()


def duration(seconds: float) -> str:
    """Returns a duration in hours, minutes and seconds.

    >>> duration(42), duration(150), duration(7380)
    ('42 s', '2 min 30 s', '2 h 3 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
