"""Everything a run measured, and its summary."""

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
"""What the summary holds of a test set, where it was measured."""

TESTS, VALIDATIONS = ("global", "local"), ("val_global", "val_local")
"""Sections of scores: of the server's models and of the clients' own, on test sets and on validation sets."""

UNSEEN = ("unseen", "unseen_models")
"""Sections of scores on datasets that no client has: of the global model, else the mean over the models, and of each
model where there are several, by `TEST by MODEL`. No round is chosen by them."""

SCORED = (*TESTS, *VALIDATIONS, *UNSEEN)
"""All sections whose values are scores."""


MOST_ROWS, MOST_NAMES, MOST_ROUNDS = 2_000_000, 20_000, 10_000_000
LONGEST = 200  # characters of a name
LARGEST = 1e18
ROUNDING = 1e-6


class Record(NamedTuple):
    """One number: `section` is global, local, val_global, val_local, unseen, unseen_models, weights, train, members,
    privacy or cost.

    `name` is a test set, client or phase; of a validation set, without `val:`.
    """

    round: int
    section: str
    name: str
    metric: str
    value: float


class History:
    """Records in the order they were made; the source of metrics.csv, the summary and every logger."""

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
        """Values by round."""
        return dict(self._series.get((section, metric), {}).get(name, {}))

    def mean_series(self, section: str, metric: str) -> dict[int, float]:
        """Mean over the test sets by round, for rounds in which all test sets of the section were evaluated.

        Test sets of clients that have left the run do not count, also in the rounds before.
        """
        gone = {name for name, values in self._series.get(("members", "images"), {}).items() if not _last(values)}
        curves = [curve for name, curve in self._series.get((section, metric), {}).items() if name not in gone]
        if not curves:
            return {}
        complete = set(curves[0]).intersection(*curves[1:])
        return {round: fmean(curve[round] for curve in curves) for round in sorted(complete)}

    def names(self, section: str, metric: str = "rank1") -> list[str]:
        """Names that have values of a metric in a section, in order of appearance."""
        return list(self._series.get((section, metric), {}))

    def of_round(self, round: int) -> list[Record]:
        """The records of one round."""
        return list(self._rounds.get(round, []))

    def to_csv(self) -> str:
        """`round,section,name,metric,value` with a header; values print so that they read back equal."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(Record._fields)
        writer.writerows((*record[:4], repr(record.value)) for record in self.records)
        return text.getvalue()

    @classmethod
    def from_csv(cls, text: str) -> History:
        """Reads what `to_csv` wrote.

        Raises:
            ValueError: if it is something else.

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
        """Columns, as a checkpoint keeps them."""
        return {name: [getattr(record, name) for record in self.records] for name in Record._fields}

    def load_state_dict(self, state: dict[str, list]) -> None:
        """Restores the columns of a checkpoint.

        Raises:
            ValueError: if they are no columns of a history.
        """
        try:
            columns = [state[name] for name in Record._fields]
        except (KeyError, TypeError) as error:
            raise ValueError("a column is missing") from error
        if not all(type(column) is list for column in columns) or len(set(map(len, columns))) != 1:
            raise ValueError("the columns are no lists of one length")
        self._take(checked_records(zip(*columns, strict=True)))


def checked_records(rows: Iterable[Sequence[Any]]) -> Iterator[Record]:
    """Rows of a file or a checkpoint as records, each held against its type and bounds.

    Raises:
        ValueError: naming the row and what is wrong with it.
    """
    seen: dict[str, set[str]] = {}
    words: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        if len(row) != len(Record._fields) or number > MOST_ROWS:
            raise ValueError(
                f"row {number}: " + ("more rows than are read" if number > MOST_ROWS else "not five values")
            )
        for text in row[1:4]:
            if text not in words:
                if type(text) is not str or not 0 < len(text) <= LONGEST or visible(text) != text:
                    raise ValueError(f"row {number}: {text!r} is no name")
                words[text] = text
        names = seen.setdefault(words[row[1]], set())
        names.add(words[row[2]])
        if len(names) > MOST_NAMES:
            raise ValueError(f"row {number}: more than {MOST_NAMES:,} names in section {row[1]}")
        try:
            round, value = int(row[0]), float(row[4])
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"row {number}: {row[0]!r} and {row[4]!r} are no round and number") from None
        if not 0 <= round <= MOST_ROUNDS or not _is_possible(row[1], row[3], value):
            raise ValueError(f"row {number}: round {round}, {row[1]} {row[3]} {value:g} is out of bounds")
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
    """Last, best, best-three mean and fluctuation of every test set of a section of scores, and their mean.

    The evaluation before training (round 0) is reported as `untrained` and takes no part in the rest.

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
    """The round with the highest mean Rank-1, and what it was chosen by: `"validation"` or `"test"`.

    By the validation sets, if there are any; of the server's models, else of the local ones; of equal rounds, the last.
    The evaluation before training is none of them.
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
    """Summary numbers of one curve over rounds.

    `best3` is the paper's mean of the three best evaluations (of fewer, if there are fewer). `fluctuation` is the
    mean absolute change between consecutive evaluations over the second half of the run's evaluations.

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
