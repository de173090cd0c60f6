"""Values and paired differences of a study, from its rows and the scores of test persons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from fedreid_pl.comparison.persons import Pairs, Persons, pair_persons
from fedreid_pl.comparison.study_persons import Place
from fedreid_pl.comparison.study_rows import MEAN, Row, newest
from fedreid_pl.functional.paired import Difference

Models = tuple[str, str]
"""Models of a study: an experiment, and `global` or `local`."""


class StudyResults:
    """The newest rows of every run of a study.

    Args:
        rows: rows of the CSV.
        persons: scores of test persons, by run, section and test set. Without these, intervals are over seeds only.
    """

    def __init__(self, rows: Sequence[Row], persons: Mapping[Place, Persons] | None = None) -> None:
        self.rows = newest(rows)
        self.persons = dict(persons or {})
        self._differences: dict[tuple[Models, Models, str, str], Difference | None] = {}

    def values(self, models: Models, test: str, score: str) -> dict[int, float]:
        """Returns a score by seed, for the runs that have the score.

        Args:
            models: experiment and section.
            test: name of a test set, or `MEAN`.
            score: name of a column of the rows.
        """
        found = self._rows(models, test)
        return {row.seed: value for row in found if (value := getattr(row, score)) is not None}

    def tests(self) -> list[str]:
        """Returns the test sets of the clients of FedPav, the largest client first."""
        sizes = {row.test: row.images or 0 for row in self.rows if row.experiment == "fedpav" and row.test != MEAN}
        return sorted(sizes, key=lambda test: -sizes[test])

    def images(self, test: str) -> int:
        """Returns the number of training images of the client of a test set."""
        return max((row.images or 0 for row in self.rows if row.test == test), default=0)

    def difference(self, one: Models, other: Models, test: str, score: str = "rank1") -> Difference | None:
        """Returns the paired difference over the seeds that both have, one less other; `None` without such a seed.

        For Rank-1 and mAP the interval is over seeds and persons if the scores of all persons are known, else over
        seeds.

        Args:
            one, other: experiment and section.
            test: name of a test set, or `MEAN` for the mean over the test sets that both experiments have.
            score: name of a column of the rows, which is a mean of numbers of each test set.
        """
        key = (one, other, test, score)
        if key not in self._differences:  # tables and figures show the same differences; a bootstrap takes a second
            self._differences[key] = self._difference(*key)
        return self._differences[key]

    def _difference(self, one: Models, other: Models, test: str, score: str) -> Difference | None:
        names = [name for name in self._tests(one) if name in self._tests(other)] if test == MEAN else [test]
        values = [self._means(models, names, score) for models in (one, other)]
        seeds = sorted(values[0].keys() & values[1].keys())
        if not seeds:
            return None
        differences = [values[0][seed] - values[1][seed] for seed in seeds]
        pairs = [(self._persons(one, seed), self._persons(other, seed)) for seed in seeds]
        return Pairs(differences, *(pair_persons(pairs, names, score) or ())).difference()

    def _means(self, models: Models, tests: Sequence[str], score: str) -> dict[int, float]:
        """Returns the mean of a score over test sets by seed, for the runs that have the score of all of them."""
        found = [self.values(models, test, score) for test in tests]
        seeds = set(found[0]).intersection(*found[1:]) if found else set()
        return {seed: fmean(values[seed] for values in found) for seed in seeds}

    def _rows(self, models: Models, test: str) -> list[Row]:
        return [row for row in self.rows if (row.experiment, row.section, row.test) == (*models, test)]

    def _tests(self, models: Models) -> list[str]:
        return sorted({row.test for row in self.rows if (row.experiment, row.section) == models and row.test != MEAN})

    def _persons(self, models: Models, seed: int) -> dict[str, Persons]:
        keys = {row.key for row in self._rows(models, MEAN) if row.seed == seed}
        return {
            test: persons
            for (key, section, test), persons in self.persons.items()
            if key in keys and section == models[1]
        }
