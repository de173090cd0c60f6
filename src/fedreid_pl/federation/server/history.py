"""Stores every number that a run measures, and summarises them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any, NamedTuple

from fedreid_pl.errors import visible

METRICS = (
    *("rank1", "rank5", "rank10", "mAP", "mAP_trapezoid", "mINP"),
    *("single_shot_rank1", "single_shot_rank5", "single_shot_rank10"),
)
"""Metrics of a test set in the summary; metrics that were not measured are missing."""

TESTS, VALIDATIONS = ("global", "local"), ("val_global", "val_local")
"""Sections of scores of the server's models and of the clients' models, on test sets and on validation sets."""

UNSEEN = ("unseen", "unseen_models")
"""Sections of scores on datasets that no client has.

`unseen` has the scores of the global model, or the mean over the models if there are several. `unseen_models` then has
the scores of each model under the name `TEST by MODEL`. The best round does not depend on them.
"""

SCORED = (*TESTS, *VALIDATIONS, *UNSEEN)
"""All sections whose values are scores."""

MOST_ROWS, MOST_NAMES, MOST_ROUNDS = 2_000_000, 20_000, 10_000_000
LONGEST = 200  # largest number of characters of a name
LARGEST = 1e18
ROUNDING = 1e-6


class Record(NamedTuple):
    """One number of a run.

    Args:
        round: round of the measurement; 0 is the evaluation before training.
        section: `global`, `local`, `val_global`, `val_local`, `unseen`, `unseen_models`, `weights`, `train`, `members`,
            `privacy`, `cost` or `system`.
        name: name of a test set, client or phase; names of validation sets have no `val:`.
        metric: name of the metric.
        value: the number.
    """

    round: int
    section: str
    name: str
    metric: str
    value: float


class History:
    """Records in the order of their creation; metrics.csv, the summary and every logger are made from them.

    Args:
        records: initial records.
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._take(records)

    def _take(self, records: Iterable[Record]) -> None:
        self.records: list[Record] = []
        self._series: dict[tuple[str, str], dict[str, dict[int, float]]] = {}  # (section, metric), name, round
        self._rounds: dict[int, list[Record]] = {}
        for record in records:
            self.add(*record)

    def add(self, round: int, section: str, name: str, metric: str, value: float) -> None:
        """Appends one number."""
        record = Record(round, section, name, metric, float(value))
        self.records.append(record)
        self._series.setdefault((section, metric), {}).setdefault(name, {})[round] = record.value
        self._rounds.setdefault(round, []).append(record)

    def series(self, section: str, name: str, metric: str) -> dict[int, float]:
        """Returns the values of a metric by round."""
        return dict(self._series.get((section, metric), {}).get(name, {}))

    def mean_series(self, section: str, metric: str) -> dict[int, float]:
        """Returns the mean over the test sets by round, for rounds with a value for every test set of the section.

        Test sets of clients that have left the run do not count, not even in earlier rounds.
        """
        gone = {name for name, values in self._series.get(("members", "images"), {}).items() if not _last(values)}
        curves = [curve for name, curve in self._series.get((section, metric), {}).items() if name not in gone]
        if not curves:
            return {}
        complete = set(curves[0]).intersection(*curves[1:])
        return {round: fmean(curve[round] for curve in curves) for round in sorted(complete)}

    def names(self, section: str, metric: str = "rank1") -> list[str]:
        """Returns the names with values of a metric in a section, in order of appearance."""
        return list(self._series.get((section, metric), {}))

    def of_round(self, round: int) -> list[Record]:
        """Returns the records of one round."""
        return list(self._rounds.get(round, []))

    def to_csv(self) -> str:
        """Returns the records as CSV with the header `round,section,name,metric,value`; values keep full precision."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(Record._fields)
        writer.writerows((*record[:4], repr(record.value)) for record in self.records)
        return text.getvalue()

    @classmethod
    def from_csv(cls, text: str) -> History:
        """Reads text that `to_csv` wrote.

        Raises:
            ValueError: if the text has another format; the message names the row.

        >>> History.from_csv(History([Record(1, "global", "mini-viper", "rank1", 0.25)]).to_csv()).records
        [Record(round=1, section='global', name='mini-viper', metric='rank1', value=0.25)]
        """
        rows = csv.reader(io.StringIO(text))
        try:
            if tuple(next(rows, ())) != Record._fields:
                raise ValueError(f"the first line is not {','.join(Record._fields)}")
            return cls(checked_records(rows))
        except csv.Error as error:
            raise ValueError(f"line {rows.line_num}: {error}") from error

    def state_dict(self) -> dict[str, list]:
        """Returns the columns of the records for a checkpoint."""
        return {name: [getattr(record, name) for record in self.records] for name in Record._fields}

    def load_state_dict(self, state: dict[str, list]) -> None:
        """Restores the columns of a checkpoint.

        Raises:
            ValueError: if the columns are not those of a history.
        """
        try:
            columns = [state[name] for name in Record._fields]
        except (KeyError, TypeError) as error:
            raise ValueError("a column is missing") from error
        if not all(type(column) is list for column in columns) or len(set(map(len, columns))) != 1:
            raise ValueError("the columns are not lists of equal length")
        self._take(checked_records(zip(*columns, strict=True)))


def checked_records(rows: Iterable[Sequence[Any]]) -> Iterator[Record]:
    """Yields rows of a file or a checkpoint as records, after a check of types and ranges.

    Raises:
        ValueError: if a row is not valid; the message names the row and the reason.
    """
    seen: dict[str, set[str]] = {}
    words: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        if len(row) != len(Record._fields) or number > MOST_ROWS:
            raise ValueError(
                f"row {number}: " + (f"more than {MOST_ROWS:,} rows" if number > MOST_ROWS else "expected five values")
            )
        for text in row[1:4]:
            if text not in words:
                if type(text) is not str or not 0 < len(text) <= LONGEST or visible(text) != text:
                    raise ValueError(f"row {number}: {text!r} is not a valid name")
                words[text] = text
        names = seen.setdefault(words[row[1]], set())
        names.add(words[row[2]])
        if len(names) > MOST_NAMES:
            raise ValueError(f"row {number}: more than {MOST_NAMES:,} names in section {row[1]}")
        try:
            round, value = int(row[0]), float(row[4])
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"row {number}: expected a round and a number, found {row[0]!r} and {row[4]!r}") from None
        if not 0 <= round <= MOST_ROUNDS or not _is_possible(row[1], row[3], value):
            raise ValueError(f"row {number}: round {round}, {row[1]} {row[3]} {value:g} is outside the valid range")
        yield Record(round, words[row[1]], words[row[2]], words[row[3]], value)


def _is_possible(section: str, metric: str, value: float) -> bool:
    if section in SCORED and metric in METRICS:
        return -ROUNDING <= value <= 1 + ROUNDING
    if section in ("weights", "cost", "system") or section in SCORED:
        return abs(value) <= LARGEST
    return True  # losses and epsilon may be infinite


def _last(values: dict[int, float]) -> float:
    return values[max(values)]


def summarize(history: History, section: str) -> dict[str, dict[str, dict[str, float]]]:
    """Returns last, best, mean of the best three, and fluctuation of every test set of a section, and of their mean.

    The evaluation before training (round 0) is reported as `untrained` and does not count for the other numbers.

    Returns:
        `{test set or "mean": {"rank1" | "mAP" | ...: {"last", "best", "best3", "fluctuation", "untrained"}}}`.
    """
    summary: dict[str, dict[str, dict[str, float]]] = {}
    for name in [*history.names(section), "mean"]:
        for metric in METRICS:
            series = history.mean_series(section, metric) if name == "mean" else history.series(section, name, metric)
            if series:
                summary.setdefault(name, {})[metric] = statistics(series)
    return summary


def best_round(history: History) -> tuple[int | None, str]:
    """Returns the round with the highest mean Rank-1 and the basis of the choice, `"validation"` or `"test"`.

    The validation sets decide, if there are any. The server's models decide; without them, the local models. Of rounds
    with equal scores the last is chosen. The evaluation before training does not count. The round is `None` without
    scores.
    """
    for sections, by in ((VALIDATIONS, "validation"), (TESTS, "test")):
        for section in sections:
            series = {round: value for round, value in history.mean_series(section, "rank1").items() if round}
            if series:
                return max(series, key=lambda round: (series[round], round)), by
        if any(history.names(section) for section in sections):
            return None, by
    return None, "test"


def statistics(series: dict[int, float]) -> dict[str, float]:
    """Returns the summary numbers of one curve over rounds.

    `best3` is the paper's mean of the three best evaluations, or of all if there are fewer. `fluctuation` is the mean
    absolute change between consecutive evaluations over the second half of the run's evaluations.

    >>> statistics({0: 0.1, 10: 0.5, 20: 0.3, 30: 0.7, 40: 0.6})["fluctuation"]
    0.1
    """
    trained = [value for round, value in sorted(series.items()) if round > 0]
    result = {"untrained": series[0]} if 0 in series else {}
    if trained:
        second = trained[len(trained) // 2 :]
        changes = [abs(after - before) for before, after in pairwise(second)]
        result |= {
            "last": trained[-1],
            "best": max(trained),
            "best3": fmean(sorted(trained)[-3:]),
            "fluctuation": round(fmean(changes), 12) if changes else 0.0,
        }
    return result
