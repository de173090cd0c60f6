"""Writes a coordinator's run as events of a log for programs."""

from __future__ import annotations

import time
from collections.abc import Sequence

from fedreid_pl.data.scenarios import NO_CAMERAS
from fedreid_pl.engines.silos.log_lines import Emit
from fedreid_pl.federation.server.context import RoundContext
from fedreid_pl.federation.server.history import Record
from fedreid_pl.federation.server.observer import Observer


class EventsObserver(Observer):
    """Writes start and end of a run, every round with its seconds, and refused answers.

    Args:
        events: writer of the events.
    """

    def __init__(self, events: Emit) -> None:
        self.events, self._since = events, time.monotonic()
        self._known: set[tuple[str, str, int]] = set()

    def on_start(self, federation: RoundContext) -> None:
        """Writes the round from which the run resumes; answers that were refused earlier are not written again."""
        self._since, self._known = time.monotonic(), _left_out(federation)
        self.events("started", round=federation.round)

    def on_round_end(self, federation: RoundContext, records: Sequence[Record]) -> None:
        """Writes an event for the round."""
        now = time.monotonic()
        for client, reason, round in sorted(_left_out(federation) - self._known):
            self.events("left_out", "warning", silo=client.removesuffix(NO_CAMERAS), round=round, reason=reason)
        self._known = _left_out(federation)
        seconds, self._since = now - self._since, now
        self.events("round", round=federation.round, attempt=federation.attempt, seconds=float(f"{seconds:.3f}"))

    def on_end(self, federation: RoundContext) -> None:
        """Writes the last saved round."""
        self.events("finished", round=federation.round)


def _left_out(federation: RoundContext) -> set[tuple[str, str, int]]:
    return {
        (client, reason, round)
        for client, reasons in federation.rejections.items()
        for reason, rounds in reasons.items()
        for round in rounds
    }
