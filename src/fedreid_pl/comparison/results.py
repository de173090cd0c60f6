"""Reads the results of finished runs from their folders, and computes statistics over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from statistics import fmean, stdev
from typing import Any, NamedTuple

from fedreid_pl.comparison.persons import Persons, read_persons
from fedreid_pl.comparison.plan import PlannedRun
from fedreid_pl.config import differences, load_config
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.server.history import History, best_round, summarize
from fedreid_pl.reporting.run_folder import read_history
from fedreid_pl.reporting.summary_file import read_summary


class Costs(NamedTuple):
    """The costs of a run from its summary: sizes in bytes, and seconds."""

    backbone_bytes: int
    bytes_down: int
    bytes_up: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Result:
    """The results of a complete run.

    Attributes:
        run: the planned run.
        history: content of metrics.csv.
        scores: `{"global" | "local": {test set: {metric: {"last", "best", "best3", ...}}}}`, from 0 to 1.
        clients: number of training images by client.
        rounds: number of rounds.
        costs: costs of the run.
        start: SHA-256 of the pretrained initial weights if this program made them, otherwise `None`.
        persons: scores of test persons in the last round, by section and test set; without those that are unknown.
    """

    run: PlannedRun
    history: History
    scores: dict[str, dict[str, dict[str, dict[str, float]]]]
    clients: dict[str, int]
    rounds: int
    costs: Costs
    start: str | None = None
    persons: dict[str, dict[str, Persons]] = field(default_factory=dict)

    def tests(self, section: str) -> list[str]:
        """Returns the names of the test sets in a section, in the order of evaluation."""
        return self.history.names(section)

    def score(self, section: str, test: str, metric: str, statistic: str) -> float | None:
        """Returns a score of the run in percent, `None` if it was not measured."""
        value = self.scores[section].get(test, {}).get(metric, {}).get(statistic)
        return None if value is None else 100 * value

    def validated(self, section: str, test: str, metric: str) -> float | None:
        """Returns a score in percent in the round that the validation sets chose, `None` without validation sets.

        `test` may be "mean".
        """
        if self.validated_round is None:
            return None
        mean = test == "mean"
        series = self.history.mean_series(section, metric) if mean else self.history.series(section, test, metric)
        value = series.get(self.validated_round)
        return None if value is None else 100 * value

    @cached_property
    def validated_round(self) -> int | None:
        """The round that the validation sets chose, `None` without validation sets."""
        round, by = best_round(self.history)
        return round if by == "validation" else None

    def trained(self, section: str, test: str) -> list[float]:
        """Returns Rank-1 in percent for each evaluation after the start of training, in order."""
        series = self.history.series(section, test, "rank1")
        return [100 * value for round, value in sorted(series.items()) if round > 0]

    def drop(self, section: str, test: str) -> float | None:
        """Returns the largest drop of Rank-1 of a test set between two evaluations in a row, in points, at least 0."""
        drops = [before - after for before, after in pairwise(self.trained(section, test))]
        return max(0.0, *drops) if drops else None

    def largest_drop(self, section: str) -> float | None:
        """Returns the largest `drop` over the test sets of a section."""
        return max(
            (drop for test in self.tests(section) if (drop := self.drop(section, test)) is not None), default=None
        )

    def fluctuation(self, section: str) -> float | None:
        """Returns the mean fluctuation over the test sets in points, `None` with fewer than three evaluations."""
        if self.evaluations(section) < 3:  # the second half of three evaluations has two
            return None
        values = [self.score(section, test, "rank1", "fluctuation") for test in self.tests(section)]
        return fmean(value for value in values if value is not None)

    def evaluations(self, section: str) -> int:
        """Returns the number of evaluations after the start of training, the smallest over the test sets."""
        return min((len(self.trained(section, test)) for test in self.tests(section)), default=0)


class Cell(NamedTuple):
    """Mean, sample standard deviation (`None` for one value) and number of seeds (0 for a figure from a paper)."""

    mean: float
    deviation: float | None
    seeds: int


def spread(values: Iterable[float | None]) -> Cell | None:
    """Returns a table cell with mean and deviation of the seeds' values, `None` if there is no value.

    >>> spread([1.0, None, 2.0, 3.0])
    Cell(mean=2.0, deviation=1.0, seeds=3)
    """
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Cell(fmean(known), stdev(known) if len(known) > 1 else None, len(known))


def read_result(run: PlannedRun) -> Result | None:
    """Reads a run's folder; returns `None` unless the run is complete, readable and has the planned configuration."""
    try:
        summary = read_summary(run.folder)
        if not summary or summary.get("complete") is not True:
            return None
        if differences(load_config(run.folder / "config.yaml"), run.config):
            return None
        history = read_history(run.folder, run.config)
        if not history.records or history.records[-1].round != run.config.rounds:
            return None
        scores = {section: summarize(history, section) for section in ("global", "local")}
        clients = {str(name): int(number) for name, number in summary["clients"].items()}
        start = (summary.get("start") or {}).get("sha256")
        rounds, costs = int(summary["rounds"]), _costs(summary["costs"])
        persons = read_persons(run.folder, rounds, scores)
        return Result(run, history, scores, clients, rounds, costs, start, persons)
    except (FedReIDError, OSError, ValueError, LookupError, TypeError, AttributeError):
        return None  # another version, or damaged files: `train` reports the error or writes the files again


def _costs(costs: Mapping[str, Any]) -> Costs:
    backbone, down, up = (int(costs[name]) for name in ("backbone_bytes", "bytes_down", "bytes_up"))
    return Costs(backbone, down, up, float(costs["seconds"]["total"]))
