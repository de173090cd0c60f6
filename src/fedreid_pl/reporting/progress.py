"""Prints the progress of a run to the terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TextIO

from fedreid_pl.federation.messages import ClientJob
from fedreid_pl.federation.server.context import RoundContext
from fedreid_pl.federation.server.history import Record
from fedreid_pl.federation.server.observer import Observer
from fedreid_pl.reporting.status import duration
from fedreid_pl.reporting.terminal import columns, fill, first_that_fits, is_live


class ProgressLine(Observer):
    """Prints one line per round; in a terminal the current line shows the client that is training.

    If several clients work at the same time, the line shows their number: "2 running, 3 of 9 done". A narrow terminal
    gets shorter texts, so that no line is broken.

    Args:
        stream: output stream, by default stderr; a file, a pipe or a dumb terminal gets finished lines only.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.live = is_live(self.stream)
        self._started = self._ended = time.monotonic()
        self._first = 0
        self._phase = self._client = ""
        self._several = False

    def on_start(self, federation: RoundContext) -> None:
        """Starts the clock for the estimate of the remaining time."""
        self._started = self._ended = time.monotonic()
        self._first = federation.round

    def on_client(self, federation: RoundContext, phase: str, job: ClientJob) -> None:
        """Shows the client that is working, only in a terminal."""
        self._phase, self._client = phase, job.client
        self._show(federation)

    def on_progress(self, federation: RoundContext) -> None:
        """Shows how many clients are working, if there are several."""
        if self._several:
            self._show(federation)

    def _show(self, federation: RoundContext) -> None:
        running, done, asked = len(federation.running), federation.done, federation.asked
        self._several = running > 1 or (self._several and done > 0)  # until the next pass starts
        if not self.live:
            return
        head = self._head(federation)
        if self._several:
            verb = "training" if self._phase == "fit" else "evaluating"
            place = f"{running} running, {done} of {asked} done"
            variants = [f"{head}  {verb}: {place}", f"{head}  {place}", f"{head.split()[-1]} {done}/{asked}"]
        elif self._phase == "fit":
            variants = self._training(federation, head)
        else:  # the mean scores of this round are not complete yet
            variants = [f"{head}  evaluating {self._client}", f"{head}  {self._client}"]
        self._over(variants)

    def _training(self, federation: RoundContext, head: str) -> list[str]:
        """Returns the line for one client in training in several lengths, from long to short."""
        client, place = self._client, f"{federation.selected.index(self._client) + 1}/{len(federation.selected)}"
        long, short, shortest = self._scores(federation)
        seconds = self._seconds_left(federation, federation.round - 1)
        left = "" if seconds is None else duration(seconds)
        return [
            f"{head}  training {client} {place}{long}{f'  {left} left' if left else ''}",
            f"{head}  training {client} {place}{short}{f'  {left} left' if left else ''}",
            f"{head}  {client} {place}{short}{f'  {left} left' if left else ''}",
            f"{head.split()[-1]} {client} {place}{shortest}{f', {_brief(left)}' if left else ''}",
            f"{head.split()[-1]} {client} {place}",
        ]

    def on_warning(self, federation: RoundContext, text: str) -> None:
        """Prints a warning; in a narrow terminal the warning takes several lines."""
        self._line([fill(f"warning: {text}", columns(self.stream))])

    def on_round_end(self, federation: RoundContext, records: Sequence[Record]) -> None:
        """Prints the line of a round: loss, Rank-1 of this or the last evaluation, remaining time."""
        losses = [record.value for record in records if record.section == "train" and record.metric == "loss"]
        loss = f"  loss {sum(losses) / len(losses):.3f}" if losses else ""
        self._ended = time.monotonic()
        left = duration(self._seconds_left(federation, federation.round) or 0.0)
        head, (long, short, shortest) = self._head(federation), self._scores(federation)
        variants = [
            f"{head}{loss}{long}  {left} left",
            f"{head}{loss}{short}  {left} left",
            f"{head}{short}  {left} left",
            f"{head} {shortest}  {left} left",
            f"{head} {shortest}  {_brief(left)}",
        ]
        self._line(variants)

    def _seconds_left(self, federation: RoundContext, done: int) -> float | None:
        rounds = done - self._first
        if rounds <= 0:
            return None
        since = time.monotonic() - self._ended
        return max((self._ended - self._started) / rounds * (federation.rounds - done) - since, 0.0)

    def _head(self, federation: RoundContext) -> str:
        return f"round {federation.round:>{len(str(federation.rounds))}}/{federation.rounds}"

    def _scores(self, federation: RoundContext) -> tuple[str, str, str]:
        """Returns the mean Rank-1 of the last evaluation in three lengths."""
        parts, when = {}, 0
        for section in ("global", "local"):
            series = federation.history.mean_series(section, "rank1")
            if series:
                when = when or max(series)
                parts[section] = f"{100 * series[max(series)]:.1f}"
        if not parts:
            return "", "", ""
        named = ", ".join(f"{section} {value}" for section, value in parts.items())
        return f"  mean Rank-1 (round {when}): {named}", f"  Rank-1 {named}", f" R1 {next(iter(parts.values()))}"

    def _over(self, variants: Sequence[str]) -> None:
        """Writes a line that the next line overwrites; keeps the last column free, where a cursor may wrap."""
        width = columns(self.stream)
        self._write("\r\x1b[K" + first_that_fits(variants, None if width is None else width - 1))

    def _line(self, variants: Sequence[str]) -> None:
        text = variants[0] if len(variants) == 1 else first_that_fits(variants, columns(self.stream))
        self._write(("\r\x1b[K" if self.live else "") + text + "\n")

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()


def _brief(left: str) -> str:
    """Returns the first number and unit of a duration."""
    return " ".join(left.split()[:2])
