"""Differences that docs/results.md shows, after Holm's correction over the cells of a table."""

from __future__ import annotations

from collections.abc import Sequence

from fedreid_pl.comparison.study_results import Models, StudyResults
from fedreid_pl.comparison.study_rows import MEAN
from fedreid_pl.functional.paired import Difference, family

FEDERATED, STANDALONE, GLOBAL = ("fedpav", "local"), ("local", "local"), ("fedpav", "global")
Kind = tuple[str, str]
"""Section and score."""
KINDS: list[Kind] = [
    ("global", "rank1"),
    ("global", "mAP"),
    ("local", "rank1"),
    ("local", "mAP"),
    ("global", "fluctuation"),
]


def tests_judged(results: StudyResults, one: Models, other: Models) -> dict[str, Difference]:
    """Returns the differences in Rank-1 by test set, the largest client first, after Holm's correction over them."""
    return family({test: found for test in results.tests() if (found := results.difference(one, other, test))})


def cells_judged(results: StudyResults, names: Sequence[str]) -> dict[tuple[str, Kind], Difference]:
    """Returns the differences of experiments to FedPav in every kind of score, after Holm's correction over them."""
    found = {
        (name, kind): one
        for name in names
        for kind in KINDS
        if (one := results.difference((name, kind[0]), ("fedpav", kind[0]), MEAN, kind[1]))
    }
    return family(found)
