"""What finished runs left in their folders, and statistics of it over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, stdev
from typing import Any, NamedTuple

from fedreid_pl.comparison.plan import PlannedRun
from fedreid_pl.config import differences, load_config
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.server.history import History, summarize
from fedreid_pl.reporting.run_folder import read_history
from fedreid_pl.reporting.summary_file import read_summary


class Costs(NamedTuple):
    """What a run has cost, from its summary."""

    backbone_bytes: int
    bytes_down: int
    bytes_up: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Result:
    """A complete run.

    Attributes:
        history: its metrics.csv.
        scores: `{"global" | "local": {test set: {metric: {"last", "best", "best3", ...}}}}`, shares of one.
        clients: number of training images by client.
        start: hash of the pretrained weights that the run began with, if this program made them.
    """

    run: PlannedRun
    history: History
    scores: dict[str, dict[str, dict[str, dict[str, float]]]]
    clients: dict[str, int]
    rounds: int
    costs: Costs
    start: str | None = None

    def tests(self, section: str) -> list[str]:
        """Names in a section, in the order of evaluation."""
        return self.history.names(section)

    def score(self, section: str, test: str, metric: str, statistic: str) -> float | None:
        """A summary number in percent, `None` if it was not measured."""
        value = self.scores[section].get(test, {}).get(metric, {}).get(statistic)
        return None if value is None else 100 * value

    def trained(self, section: str, test: str) -> list[float]:
        """Rank-1 in percent of every evaluation after training began, in order."""
        series = self.history.series(section, test, "rank1")
        return [100 * value for round, value in sorted(series.items()) if round > 0]

    def drop(self, section: str, test: str) -> float | None:
        """The most points of Rank-1 that a test set lost from one evaluation to the next; 0.0 if it never fell."""
        drops = [before - after for before, after in pairwise(self.trained(section, test))]
        return max(0.0, *drops) if drops else None

    def largest_drop(self, section: str) -> float | None:
        """`drop` of the test set that lost most."""
        return max(
            (drop for test in self.tests(section) if (drop := self.drop(section, test)) is not None), default=None
        )

    def fluctuation(self, section: str) -> float | None:
        """Mean over the test sets of the fluctuation in points, `None` if it would rest on one evaluation."""
        if self.evaluations(section) < 3:  # the second half of three is two
            return None
        values = [self.score(section, test, "rank1", "fluctuation") for test in self.tests(section)]
        return fmean(value for value in values if value is not None)

    def evaluations(self, section: str) -> int:
        """Evaluations after training began, of the test set that has fewest."""
        return min((len(self.trained(section, test)) for test in self.tests(section)), default=0)


class Cell(NamedTuple):
    """Mean and sample standard deviation (`None` for one value) over so many seeds (0: not ours, printed)."""

    mean: float
    deviation: float | None
    seeds: int


def spread(values: Iterable[float | None]) -> Cell | None:
    """The cell of a table from the values of its seeds, `None` if there is no value.

    >>> spread([1.0, None, 2.0, 3.0])
    Cell(mean=2.0, deviation=1.0, seeds=3)
    """
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Cell(fmean(known), stdev(known) if len(known) > 1 else None, len(known))


def read_result(run: PlannedRun) -> Result | None:
    """The run as its folder has it, `None` unless it is complete, of the wanted configuration and readable."""
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
        return Result(run, history, scores, clients, int(summary["rounds"]), _costs(summary["costs"]), start)
    except (FedReIDError, OSError, ValueError, LookupError, TypeError, AttributeError):
        return None  # of another version, or damaged: `train` says what is wrong, or writes it anew


def _costs(costs: Mapping[str, Any]) -> Costs:
    backbone, down, up = (int(costs[name]) for name in ("backbone_bytes", "bytes_down", "bytes_up"))
    return Costs(backbone, down, up, float(costs["seconds"]["total"]))
