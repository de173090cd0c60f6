"""Scores of single test persons: read from a run, and paired by seed for intervals over seeds and persons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedreid_pl.errors import FedReIDError
from fedreid_pl.functional.paired import Difference, paired_difference
from fedreid_pl.reporting.inspection import read_inspection

METRICS = ("rank1", "mAP")
CLOSE = 1e-5  # largest difference between a score of the run and the mean over its persons, both in [0, 1]


class Persons(NamedTuple):
    """Scores of the persons of a test set, in ascending order of identity.

    Args:
        queries: number of counted queries of each person.
        rank1, mAP: mean scores of each person's queries, in [0, 1].
    """

    queries: tuple[int, ...]
    rank1: tuple[float, ...]
    mAP: tuple[float, ...]

    def mean(self, metric: str) -> float:
        """Returns the score of the test set, in [0, 1]."""
        return float(np.average(getattr(self, metric), weights=self.queries))


Tested = Mapping[str, Persons]
"""Persons by test set."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Paired differences, one for each seed, if possible also by person.

    Attributes:
        values: one difference per seed, in points.
        by_person: `[S, P]`, differences by seed and person, in points; `None` if unknown.
        weights: `[P]`, share of each person in the score.
    """

    values: list[float]
    by_person: np.ndarray | None = None
    weights: np.ndarray | None = None

    def difference(self) -> Difference:
        """Returns mean, interval and p value over seeds and, if differences by person are known, over persons.

        Raises:
            ValueError: if there is no value.
        """
        if self.by_person is None:
            return paired_difference(self.values)
        return paired_difference(self.by_person, weights=self.weights)


def read_persons(
    folder: Path, round: int, scores: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]
) -> dict[str, dict[str, Persons]]:
    """Returns the scores of persons in a run's inspection.json by section and test set.

    A test set is left out if the persons' mean is not the run's score. This is the case where a score is the mean over
    several models. Without a readable inspection.json the result is empty.

    Args:
        folder: folder of the run.
        round: last round of the run.
        scores: scores of the run, see `Result.scores`.
    """
    try:
        content = read_inspection(folder)
    except FedReIDError:  # the scores of the run are in other files
        return {}
    if content is None or content["round"] != round:
        return {}
    models = [model for test in content["tests"].values() for model in test.get("persons", {})]
    found: dict[str, dict[str, Persons]] = {}
    for test, entry in content["tests"].items():
        for model, columns in entry.get("persons", {}).items():
            persons = Persons(*(tuple(columns[name]) for name in Persons._fields))
            section = "global" if model == "global" else "local"
            name = test if section == "global" or models.count(model) > 1 else model
            if _agrees(persons, scores.get(section, {}).get(name, {})):
                found.setdefault(section, {})[name] = persons
    return found


def pair_persons(
    pairs: Sequence[tuple[Tested, Tested]], tests: Iterable[str], metric: str
) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the differences by seed and person, one less other, and the persons' weights.

    The weighted mean of a row is the seed's difference of the means over the test sets: a person weighs as much as the
    person's share in the queries of the test set, divided by the number of test sets.

    Args:
        pairs: for each seed, the persons of the two experiments by test set.
        tests: names of the test sets.
        metric: `rank1` or `mAP`.

    Returns:
        `[S, P]` in points, and `[P]`; `None` if the persons of a test set are unknown or not the same in all seeds.

    >>> one, other = Persons((1, 3), (1.0, 0.0), (1.0, 0.5)), Persons((1, 3), (0.0, 0.0), (0.5, 0.5))
    >>> values, weights = pair_persons([({"a": one}, {"a": other})], ["a"], "mAP")
    >>> values.tolist(), weights.tolist()
    ([[50.0, 0.0]], [0.25, 0.75])
    """
    names = list(tests)
    columns, weights = [], []
    for test in names:
        found = [(one.get(test), other.get(test)) for one, other in pairs]
        known = [persons for pair in found for persons in pair if persons is not None]
        if len(known) < 2 * len(pairs) or len({persons.queries for persons in known}) > 1 or metric not in METRICS:
            return None
        one, other = (np.array([getattr(pair[side], metric) for pair in found]) for side in (0, 1))
        columns.append(100 * (one - other))
        queries = np.array(known[0].queries, dtype=np.float64)
        weights.append(queries / queries.sum() / len(names))
    return (np.concatenate(columns, axis=1), np.concatenate(weights)) if columns else None


def _agrees(persons: Persons, scores: Mapping[str, Mapping[str, float]]) -> bool:
    last = [scores.get(metric, {}).get("last") for metric in METRICS]
    return all(
        score is not None and abs(score - persons.mean(metric)) <= CLOSE
        for metric, score in zip(METRICS, last, strict=True)
    )
