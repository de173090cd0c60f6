"""Splits an evaluation job into one task per test set, and combines the outcomes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fedreid_pl.federation.messages import ClientFailure, ClientJob, ClientUpdate

Outcome = ClientUpdate | ClientFailure


class Answers:
    """Splits an evaluation job by test set and combines the outcomes of its pieces.

    Args:
        job: the server's job.
        begin: called when a slot gets the first piece of the job.

    Attributes:
        pieces: one job for each test set of an evaluation; a training job stays whole.
    """

    def __init__(self, job: ClientJob, begin: Any) -> None:
        self.begin = begin
        tests = str(job.config.get("tests", "")).split("/")
        self.pieces = [job]
        if job.kind == "evaluate" and len(tests) > 1:
            self.pieces = [replace(job, config={**job.config, "tests": test}) for test in tests]
        self._outcomes: dict[int, Outcome] = {}

    def take(self, piece: ClientJob, outcome: Outcome) -> Outcome | None:
        """Records the outcome of a piece; returns the outcome of the job after the last piece, before that `None`.

        The outcome of the job is the first failure, or an update with all scores in the order of the test sets.
        """
        self._outcomes[next(place for place, job in enumerate(self.pieces) if job is piece)] = outcome
        if len(self._outcomes) < len(self.pieces):
            return None
        outcomes = [self._outcomes[place] for place in range(len(self.pieces))]
        updates = [one for one in outcomes if isinstance(one, ClientUpdate)]
        if len(updates) < len(outcomes) or len(updates) == 1:
            return next((one for one in outcomes if isinstance(one, ClientFailure)), outcomes[0])
        metrics = {name: value for one in updates for name, value in one.metrics.items()}
        return replace(updates[0], metrics=metrics)
