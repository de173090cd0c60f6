"""What a person sees in the terminal while a run goes on."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from typing import TextIO

from fedreid_pl.federation.history import Record
from fedreid_pl.federation.loop import FederationLoop
from fedreid_pl.federation.messages import ClientJob
from fedreid_pl.federation.observer import Observer
from fedreid_pl.reporting.status import duration


class ProgressLine(Observer):
    """One line per round; in a terminal the line shows the client in training while the round lasts.

    Args:
        stream: where to, stderr by default; a file or pipe gets finished lines only.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self._started = time.monotonic()
        self._first = 0

    def on_start(self, federation: FederationLoop) -> None:
        """Starts the clock that the time left is estimated from."""
        self._started = time.monotonic()
        self._first = federation.round

    def on_client(self, federation: FederationLoop, phase: str, job: ClientJob) -> None:
        """Shows who is at work, in a terminal only."""
        if self.live:
            if phase == "fit":
                place = f" {federation.selected.index(job.client) + 1}/{len(federation.selected)}"
                text = f"training {job.client}{place}{self._scores(federation)}"
            else:  # the means are not complete yet
                text = f"evaluating {job.client}"
            self._write(f"{self._head(federation)}  {text}", end="")

    def on_warning(self, federation: FederationLoop, text: str) -> None:
        """A line of its own."""
        self._write(f"warning: {text}")

    def on_round_end(self, federation: FederationLoop, records: Sequence[Record]) -> None:
        """The round's line: loss, Rank-1 where it was evaluated (else the last one), time left."""
        losses = [record.value for record in records if record.section == "train" and record.metric == "loss"]
        loss = f"  loss {sum(losses) / len(losses):.3f}" if losses else ""
        done = federation.round - self._first
        left = (time.monotonic() - self._started) / done * (federation.rounds - federation.round)
        self._write(f"{self._head(federation)}{loss}{self._scores(federation)}  {duration(left)} left")

    def _head(self, federation: FederationLoop) -> str:
        return f"round {federation.round:>{len(str(federation.rounds))}}/{federation.rounds}"

    def _scores(self, federation: FederationLoop) -> str:
        parts, when = [], 0
        for section in ("global", "local"):
            series = federation.history.mean_series(section, "rank1")
            if series:
                when = when or max(series)
                parts.append(f"{section} {100 * series[max(series)]:.1f}")
        return f"  mean Rank-1 (round {when}): {', '.join(parts)}" if parts else ""

    def _write(self, text: str, end: str = "\n") -> None:
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            text = "\r\x1b[K" + (text[:width] if not end else text)
        self.stream.write(text + end)
        self.stream.flush()
