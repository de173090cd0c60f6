"""Tables of leave-one-domain-out runs: scores on the unseen target, and paired differences to a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from fedreid_pl.comparison.accuracy import Experiments
from fedreid_pl.comparison.differences import OVER_SEEDS, difference_cells, difference_columns
from fedreid_pl.comparison.results import Cell, Result, spread
from fedreid_pl.comparison.tables import Column, Table
from fedreid_pl.federation.server.history import best_round
from fedreid_pl.functional.paired import family, paired_difference
from fedreid_pl.reporting.paper_unseen import LEFT_OUT, departures_from_paper, left_out_name

MEAN = "mean"
ON_TARGET = "best on target"
"""Column title of the best evaluation on the target itself, as papers print it; a deployment cannot select it."""
SHOWN = (("last", "last"), ("validated", "validated"), ("best", ON_TARGET))


def unseen_score(result: Result, target: str, metric: str, which: str) -> float | None:
    """Returns a score on the unseen target in percent, `None` if it was not measured.

    Args:
        result: result of a run that left the target out.
        target: name of the test set.
        metric: `rank1` or `mAP`.
        which: round of the score. `last` is the last round, `validated` the best round on the validation persons
            (`None` without validation persons), and `best` the best round on the target itself.
    """
    series = {round: value for round, value in result.history.series("unseen", target, metric).items() if round}
    if not series:
        return None
    if which == "validated":
        chosen, by = best_round(result.history)
        return 100 * series[chosen] if by == "validation" and chosen in series else None
    return 100 * (max(series.values()) if which == "best" else series[max(series)])


def targets_of(experiments: Experiments) -> list[str]:
    """Returns the names of the unseen test sets, in order of appearance."""
    results = (result for group in experiments.values() for result in group)
    return list(dict.fromkeys(name for result in results for name in result.tests("unseen")))


def unseen_table(experiments: Experiments, kind: str, paper: bool) -> Table | None:
    """Returns the table of scores on every unseen target, `None` if no run left a dataset out.

    The table has Rank-1 and mAP by experiment on the target and on the clients' own test sets, seconds and bytes.
    """
    targets = targets_of(experiments)
    if not targets:
        return None
    columns = [
        Column(f"{title} {name}", f"unseen_{metric}_{key}")
        for key, name in SHOWN
        for metric, title in (("rank1", "R1"), ("mAP", "mAP"))
    ]
    columns += [Column("sources R1", "source_rank1_last"), Column("sources mAP", "source_mAP_last")]
    columns += [Column("seconds", "seconds", ",.0f"), Column("MB", "megabytes", ",.1f")]
    table = Table("unseen", f"Left out: the unseen target (%){kind}", ("left out", "experiment"), columns)
    for target in targets:
        for label, results in experiments.items():
            table.add(
                (target, label), _cells([result for result in results if target in result.tests("unseen")], target)
            )
            _add_best_single(table, target, label, results)
        if paper:
            _add_paper(table, experiments, target)
    if len(targets) > 1:
        for label, results in experiments.items():
            table.add((MEAN, label), _mean_cells(results, targets))
    table.notes += [
        f"{ON_TARGET}: the best evaluation of the target itself, as papers print it; no deployment can choose it.",
        "validated: the round with the best Rank-1 of the clients' validation persons (data.val_ids).",
        "sources: the last round's mean over the clients' own test sets (source performance).",
    ]
    return table


def difference_table(experiments: Experiments, first: str, kind: str) -> Table | None:
    """Returns the table of paired differences to the experiment `first` in points, `None` if it has no row.

    Each seed gives one value: the mean over the targets in the last round. `functional.paired` computes the intervals.
    The verdicts include Holm's correction over the experiments of a metric.
    """
    targets, others = targets_of(experiments), [label for label in experiments if label != first]
    if first not in experiments:
        return None
    table = Table(
        "unseen_difference",
        f"Left out: difference to {first} (points){kind}",
        ("experiment", "metric", "verdict"),
        difference_columns(first),
    )
    for metric, title in (("mAP", "mAP"), ("rank1", "Rank-1")):
        pairs = {label: paired_values(experiments, first, label, targets, metric) for label in others}
        found = family({label: paired_difference(values) for label, values in pairs.items() if values})
        for label, one in found.items():
            table.add((label, title, one.verdict), difference_cells(one))
    table.notes.append(OVER_SEEDS)
    return table if table.rows else None


def paired_values(
    experiments: Experiments, first: str, second: str, targets: Sequence[str], metric: str
) -> list[float]:
    """Returns the differences second minus first, one for each seed and split in which both have every target."""
    mine, theirs = (_means(experiments[label], targets, metric, "last") for label in (second, first))
    return [mine[draw] - theirs[draw] for draw in mine if draw in theirs]


def _means(results: Sequence[Result], targets: Sequence[str], metric: str, which: str) -> dict[tuple, float]:
    """Returns the mean over the targets by seed and split, for those that have all targets."""
    found: dict[tuple, dict[str, float]] = {}
    for result in results:
        for target in result.tests("unseen"):
            if (value := unseen_score(result, target, metric, which)) is not None:
                found.setdefault(result.run.draw, {})[target] = value
    return {draw: fmean(scores.values()) for draw, scores in found.items() if set(scores) == set(targets)}


def _cells(results: Sequence[Result], target: str) -> list[Cell | None]:
    cells = [
        spread(unseen_score(result, target, metric, key) for result in results)
        for key, _ in SHOWN
        for metric in ("rank1", "mAP")
    ]
    return [*cells, *_rest(results)]


def _rest(results: Sequence[Result]) -> list[Cell | None]:
    cells = [
        spread(
            result.score("global" if result.tests("global") else "local", MEAN, metric, "last") for result in results
        )
        for metric in ("rank1", "mAP")
    ]
    sizes = ((result.costs.bytes_down + result.costs.bytes_up) / 1e6 for result in results)
    return [*cells, spread(result.costs.seconds for result in results), spread(sizes)]


def _mean_cells(results: Sequence[Result], targets: Sequence[str]) -> list[Cell | None]:
    columns = [
        spread(_means(results, targets, metric, key).values()) for key, _ in SHOWN for metric in ("rank1", "mAP")
    ]
    return [*columns, None, None, None, None]


def _add_best_single(table: Table, target: str, label: str, results: Sequence[Result]) -> None:
    """Adds a row for runs with several models: the model with the best score on the target in the last round."""
    scores: dict[str, list[float | None]] = {"rank1": [], "mAP": []}
    for result in results:
        names = [name for name in result.tests("unseen_models") if name.startswith(f"{target} by ")]
        curves = {name: result.history.series("unseen_models", name, "mAP") for name in names}
        if curves:
            best = max(curves, key=lambda name: curves[name][max(curves[name])])
            for metric, values in scores.items():
                series = result.history.series("unseen_models", best, metric)
                values.append(100 * series[max(series)])
    if scores["mAP"]:
        cells: list[Cell | None] = [None] * len(table.columns)
        cells[4:6] = spread(scores["rank1"]), spread(scores["mAP"])
        table.add((target, f"{label}, its best single model"), cells)


def _add_paper(table: Table, experiments: Experiments, target: str) -> None:
    name = left_out_name(target)
    if name is None:
        return
    for published in LEFT_OUT:
        mean_ap, rank1 = published.targets[name]
        cells: list[Cell | None] = [None] * len(table.columns)
        cells[4:6] = Cell(rank1, None, 0), Cell(mean_ap, None, 0)
        table.add((target, f"paper: {published.label}"), cells)
    for label, results in experiments.items():
        for result in results[:1]:
            differs = departures_from_paper(result.run.config, result.clients, target)
            said = f"paper_setting=false: {'; '.join(differs)}" if differs else "paper_setting=true"
            table.notes.append(f"{target}, {label}: {said}.")
