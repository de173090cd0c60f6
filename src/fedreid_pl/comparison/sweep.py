"""Runs a sweep: trains the missing runs and selects the setting with the best validation score."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from fedreid_pl.comparison.compare import check_runs, warn_of_starts
from fedreid_pl.comparison.results import Cell, Result, read_result, spread
from fedreid_pl.comparison.runner import train_runs
from fedreid_pl.comparison.sweep_plan import STATISTICS, Point, SweepPlan, same_words
from fedreid_pl.comparison.tables import Column, Table
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.client.trainer import quiet
from fedreid_pl.federation.server.history import TESTS, VALIDATIONS, History
from fedreid_pl.federation.storage import check_output, write_text
from fedreid_pl.functional.paired import family, paired_difference
from fedreid_pl.reporting.escaping import csv_text

NAMES = {"val_global": "global model", "val_local": "local models", "global": "global model", "local": "local models"}
METRICS = {"rank1": "Rank-1", "mAP": "mAP"}
Draws = Mapping[int, Mapping[str, float]]
"""Scores in percent by seed and by `val_rank1`, `val_mAP`, `test_rank1`, `test_mAP`."""


class Swept(NamedTuple):
    """A combination of values whose runs are complete for all seeds.

    Args:
        point: the combination: one value for each key.
        draws: scores by seed.
    """

    point: Point
    draws: Draws

    def mean(self, name: str) -> float:
        """Returns the mean of a score over the seeds."""
        return sum(scores[name] for scores in self.draws.values()) / len(self.draws)


def sweep(plan: SweepPlan) -> None:
    """Trains the missing runs, and prints the table and the words of the best combination.

    Raises:
        FedReIDError: before any training, if a run's configuration is invalid; at the end, after the table of the
            complete runs is printed, if a run failed. In this case no combination is selected.
    """
    quiet()
    results = {place: result for place, run in plan.runs.items() if (result := read_result(run))}
    missing = [run for place, run in plan.runs.items() if place not in results]
    check_runs(missing)
    if plan.out is not None:
        check_output(plan.out, "out")
    if missing:
        there = f"{len(results)} of {len(plan.runs)} runs are there, " if results else ""
        print(f"{there}{len(missing)} to train", file=sys.stderr, flush=True)
        train_runs(missing, plan.jobs)
        results = {place: result for place, run in plan.runs.items() if (result := read_result(run))}
        missing = [run for place, run in plan.runs.items() if place not in results]
    found, table = _report(plan, results)
    if table is not None:
        print(table.to_text())
    if plan.out is not None:
        write_text(plan.out, _scores_csv(plan, found))
    if missing:
        names = ", ".join(f"{run.name} ({run.folder})" for run in missing[:5]) + ", ..." * (len(missing) > 5)
        raise FedReIDError(
            f"{len(missing)} of {len(plan.runs)} runs are missing, so that nothing is chosen: {names}; mend them and "
            "repeat the command"
        )
    print(f"\nBest: {shlex.join(f'{key}={value}' for key, value in found[0].point)}")
    print(f"Train with it: fedreid-pl train {shlex.join(same_words(plan, found[0].point))}")


def _report(plan: SweepPlan, results: Mapping[tuple[int, Point], Result]) -> tuple[list[Swept], Table | None]:
    for warning in warn_of_starts(results.values()):
        print(warning, file=sys.stderr, flush=True)
    if not results:
        return [], None
    sections = [_common(list(results.values()), kinds) for kinds in (VALIDATIONS, TESTS)]
    if sections[0] is None:
        raise FedReIDError(
            "sweep: the runs have no common validation scores; let all of them have a global model, or none"
        )
    found = ranked(plan, results, sections[0], sections[1])
    return found, _table(plan, found, sections[0], sections[1], next(iter(results.values())))


def ranked(
    plan: SweepPlan, results: Mapping[tuple[int, Point], Result], validation: str, test: str | None
) -> list[Swept]:
    """Returns the combinations with a complete run for every seed, ordered by mean validation Rank-1, the best first.

    Ties are ordered by validation mAP, then by the order of the command. Test scores do not affect the order.

    Args:
        results: complete runs by seed and combination.
        validation: section of the validation scores, `val_global` or `val_local`.
        test: section of the test scores, or `None`.
    """
    found = []
    for point in plan.points:
        draws = {
            seed: _scores(results[seed, point].history, plan.statistic, validation, test)
            for seed in plan.seeds
            if (seed, point) in results
        }
        if len(draws) == len(plan.seeds):
            found.append(Swept(point, draws))
    return sorted(found, key=lambda one: (-one.mean("val_rank1"), -one.mean("val_mAP")))


def _common(results: Sequence[Result], kinds: Sequence[str]) -> str | None:
    """Returns the first section in which every run has scores, `None` if there is none."""
    return next((kind for kind in kinds if all(result.history.names(kind) for result in results)), None)


def _scores(history: History, statistic: str, validation: str, test: str | None) -> dict[str, float]:
    curve = {round: value for round, value in history.mean_series(validation, "rank1").items() if round}
    chosen = max(curve) if statistic == "last" else max(curve, key=lambda round: (curve[round], round))
    wanted = [("val", validation)] + ([("test", test)] if test else [])
    return {
        f"{name}_{metric}": 100 * series[chosen]
        for name, section in wanted
        for metric in METRICS
        if chosen in (series := history.mean_series(section, metric))
    }


def _table(plan: SweepPlan, found: Sequence[Swept], validation: str, test: str | None, one: Result) -> Table:
    config = one.run.config
    kind = " (synthetic data)" if config.data.synthetic else ""
    seeds = f"seed{'s' * (len(plan.seeds) > 1)} {', '.join(map(str, plan.seeds))}"
    deviation = ", mean ± sample standard deviation" if len(plan.seeds) > 1 else ""
    columns = [Column(f"val {title}", f"val_{metric}") for metric, title in METRICS.items()]
    if plan.test and test:
        columns += [Column(f"test {title}", f"test_{metric}") for metric, title in METRICS.items()]
    table = Table(
        "sweep",
        f"Sweep of {plan.experiment} on {config.data.name}{kind}, {seeds}{deviation} (%); {STATISTICS[plan.statistic]}",
        plan.keys,
        columns,
    )
    for swept in found:
        table.add(tuple(value for _, value in swept.point), [_cell(swept, column.metric) for column in columns])
    table.notes.append(
        f"val: mean over the clients' validation persons (data.val_ids={config.data.val_ids:g}), "
        f"{NAMES[validation]}; the order is that of val Rank-1, then of val mAP."
    )
    if plan.test and test:
        table.notes.append(f"test: mean over the test sets, {NAMES[test]}; chooses nothing.")
    table.notes += [note for note in (_equals(found), *_edges(plan, found)) if note]
    return table


def _cell(swept: Swept, metric: str) -> Cell | None:
    return spread(scores.get(metric) for scores in swept.draws.values())


def _equals(found: Sequence[Swept]) -> str:
    """Returns a note with the combinations that do not differ significantly from the best combination."""
    if len(found) < 2:
        return ""
    best, *others = found
    if len(best.draws) < 2:
        return "One seed: how sure the order is cannot be told; give seeds=0,1,2."
    score: Callable[[Swept, int], float] = lambda swept, seed: swept.draws[seed]["val_rank1"]  # noqa: E731
    differences = {
        ", ".join(value for _, value in other.point): paired_difference(
            [score(best, seed) - score(other, seed) for seed in best.draws]
        )
        for other in others
    }
    near = [name for name, one in family(differences).items() if one.verdict == "cannot tell"]
    if not near:
        return "Every other setting is worse than the best (paired over seeds, 95 %, Holm's correction)."
    return f"Cannot be told from the best (paired over seeds, 95 %, Holm's correction): {'; '.join(near)}."


def _edges(plan: SweepPlan, found: Sequence[Swept]) -> list[str]:
    """Returns a note for each key whose best value is the smallest or the largest value that was tried."""
    notes = []
    for index, key in enumerate(plan.keys if found else ()):
        try:
            tried = sorted({float(point[index][1]) for point in plan.points})
            best = float(found[0].point[index][1])
        except ValueError:
            continue
        if len(tried) > 1 and best in (tried[0], tried[-1]):
            end = "smallest" if best == tried[0] else "largest"
            notes.append(f"{key}={found[0].point[index][1]} is the {end} value that was tried; try more on that side.")
    return notes


def _scores_csv(plan: SweepPlan, found: Sequence[Swept]) -> str:
    """Returns a CSV with one line per combination and seed, the best combination first."""
    names = [f"val_{metric}" for metric in METRICS] + [f"test_{metric}" for metric in METRICS] * plan.test
    rows = [
        [
            *(value for _, value in swept.point),
            seed,
            *(f"{scores[name]:.4f}" if name in scores else "" for name in names),
            str(plan.runs[seed, swept.point].folder),
        ]
        for swept in found
        for seed, scores in swept.draws.items()
    ]
    return csv_text([*plan.keys, "seed", *names, "folder"], rows)
