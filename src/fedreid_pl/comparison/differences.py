"""Paired differences of every experiment to a baseline, with intervals and verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from fedreid_pl.comparison.accuracy import METRICS, Experiments
from fedreid_pl.comparison.persons import Pairs, pair_persons
from fedreid_pl.comparison.plan import STATISTICS
from fedreid_pl.comparison.results import Cell, Result
from fedreid_pl.comparison.tables import Column, Table
from fedreid_pl.functional.paired import Difference, family

FLUCTUATION = "fluctuation"
MEASURES = tuple((section, metric) for section in ("global", "local") for metric in ("rank1", "mAP", FLUCTUATION))
SWAPPED = {"better": "worse", "worse": "better", "cannot tell": "cannot tell"}
METRIC = "difference_to_"
"""Beginning of the metric in the tidy rows; the baseline follows."""
VERDICTS = (
    "'cannot tell': the interval contains zero, or the difference is not significant after Holm's correction over the "
    "experiments of a measure."
)
OVER_SEEDS = f"95 % bootstrap interval of the mean paired difference over seeds. {VERDICTS}"
OVER_PERSONS = (
    "95 % bootstrap interval of the mean paired difference over seeds and test persons; for fluctuation over seeds. "
    f"{VERDICTS}"
)


def difference_columns(baseline: str) -> list[Column]:
    """Columns of a table of differences: mean, interval, p before and after Holm's correction, seeds."""
    return [
        Column("difference", f"{METRIC}{baseline}", "+.2f"),
        *(Column(name, name, "+.2f") for name in ("low", "high")),
        Column("p", "p", ".3f"),
        Column("p, Holm", "p_holm", ".3f"),
        Column("seeds", "seeds", ".0f"),
    ]


def difference_cells(one: Difference) -> Iterator[Cell | None]:
    """Cells of `difference_columns`; a single seed has no interval and no p."""
    single = one.seeds == 1
    yield Cell(one.mean, None, one.seeds)
    for value in (one.low, one.high, one.p, one.adjusted):
        yield None if single else Cell(value, None, one.seeds)
    yield Cell(one.seeds, None, one.seeds)


def paired_table(experiments: Experiments, baseline: str, statistic: str, kind: str) -> Table | None:
    """Differences of the means over the test sets to a baseline, in points; one value per seed and split.

    The means are over the test sets that an experiment shares with the baseline. The verdict of a fluctuation is
    `better` if it is smaller. `None` without another experiment, or without runs of the baseline.

    Args:
        statistic: `last`, `best3` or `best`.
        kind: what the title says beside that, such as ", synthetic data".
    """
    if baseline not in experiments:
        return None
    title = f"Difference to {baseline} (points), {STATISTICS[statistic]}{kind}"
    lead = ("experiment", "models and measure", "verdict")
    table = Table("difference", title, lead, difference_columns(baseline))
    others = {label: results for label, results in experiments.items() if label != baseline}
    persons = []  # for each difference of a score, whether its interval is over persons, too
    for section, metric in MEASURES:
        pairs = {
            label: paired_values(results, experiments[baseline], section, metric, statistic)
            for label, results in others.items()
        }
        pairs = {label: pair for label, pair in pairs.items() if pair.values}
        persons += [pair.by_person is not None for pair in pairs.values() if metric != FLUCTUATION]
        found = judged(pairs, metric)
        for label, one in found.items():
            table.add((label, f"{section}, {METRICS.get(metric, metric)}", one.verdict), difference_cells(one))
    table.notes.append(OVER_PERSONS if persons and all(persons) else OVER_SEEDS)
    if any(persons) and not all(persons):
        table.notes.append("Where the scores of all test persons are known, the interval is over seeds and persons.")
    for label, results in others.items():
        mine, theirs = results[0].tests("local"), experiments[baseline][0].tests("local")
        shared = [test for test in mine if test in theirs]
        if len(shared) < max(len(mine), len(theirs)):
            table.notes.append(
                f"{label}: the means are over the {len(shared)} test sets that it shares with {baseline}."
            )
    return table if table.rows else None


def judged(pairs: Mapping[str, Pairs], metric: str) -> dict[str, Difference]:
    """Returns the differences of a family of experiments to their baseline.

    Args:
        pairs: by experiment, the paired differences; none is empty.
        metric: `fluctuation` is better if it is smaller, every other if it is larger.

    >>> judged({"calm": Pairs([-2.0, -2.5, -3.0, -2.2, -2.8])}, "fluctuation")["calm"].verdict
    'better'
    """
    found = family({label: pair.difference() for label, pair in pairs.items()})
    if metric != FLUCTUATION:
        return found
    return {label: one._replace(verdict=SWAPPED[one.verdict]) for label, one in found.items()}  # type: ignore[arg-type]


def paired_values(
    results: Sequence[Result], baseline: Sequence[Result], section: str, metric: str, statistic: str
) -> Pairs:
    """Returns one difference, experiment less baseline, for every seed and split that both have, in their order.

    The differences are also returned by person if all pairs have the same test sets and persons, for `last` Rank-1 and
    mAP. Runs of several splits have other persons in every split.
    """
    theirs = {result.run.draw: result for result in baseline}
    values, pairs, tests = [], [], []
    for mine in results:
        other = theirs.get(mine.run.draw)
        shared = [test for test in mine.tests(section) if test in other.tests(section)] if other else []
        if not other or not shared:
            continue
        pair = [_mean(result, section, shared, metric, statistic) for result in (mine, other)]
        if pair[0] is not None and pair[1] is not None:
            values.append(pair[0] - pair[1])
            pairs.append((mine.persons.get(section, {}), other.persons.get(section, {})))
            tests.append(shared)
    one_split = len({result.run.split for result in results}) == 1
    same = statistic == "last" and one_split and all(names == tests[0] for names in tests)
    by_person = pair_persons(pairs, tests[0], metric) if pairs and same else None
    return Pairs(values, *(by_person or ()))


def _mean(result: Result, section: str, tests: Sequence[str], metric: str, statistic: str) -> float | None:
    if metric == FLUCTUATION:
        if result.fluctuation(section) is None:
            return None
        metric, statistic = "rank1", FLUCTUATION
    values = [result.score(section, test, metric, statistic) for test in tests]
    return None if None in values else fmean(value for value in values if value is not None)
