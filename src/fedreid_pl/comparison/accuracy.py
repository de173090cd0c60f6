"""Tables of accuracy over seeds, in the form of the paper's Tables 2, 3 and 4."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from fedreid_pl.comparison.plan import STATISTICS
from fedreid_pl.comparison.results import Cell, Result, spread
from fedreid_pl.comparison.tables import Column, Table
from fedreid_pl.reporting.paper import TABLE2, TABLE3, TABLE4, paper_figure, paper_name
from fedreid_pl.reporting.paper_unseen import BY_CAMERA, left_out_name
from fedreid_pl.reporting.run_folder import setting

Experiments = Mapping[str, Sequence[Result]]
"""Complete runs by experiment, in the order of the command; each experiment has at least one run."""

START = "untrained"
Draw = tuple[int, int | None]
"""Seed and split, see `PlannedRun.draw`."""
Score = Callable[[str, str], float | None]
"""Function that returns the score in percent for a metric and a test set."""

METRICS = {"rank1": "Rank-1", "rank5": "Rank-5", "rank10": "Rank-10", "mAP": "mAP"}


class Models(NamedTuple):
    """A row of Table 3: the global or the local models of an experiment, with or without federation."""

    label: str
    experiment: str
    section: str


def models_of(experiments: Experiments) -> list[Models]:
    """Returns the rows of Table 3: standalone, centralized, then both kinds of models of each federated experiment."""
    rows = []
    for role in ("standalone", "centralized", "federated"):
        for label, results in experiments.items():
            if results[0].run.role != role:
                continue
            if role == "federated":
                several = any(result.history.names("weights", "cluster") for result in results)
                rows += [Models(f"{label}, {'cluster models' if several else 'global model'}", label, "global")]
                rows += [Models(f"{label}, local models", label, "local")]
            else:
                rows.append(Models(label if label == role else f"{role} ({label})", label, "local"))
    return rows


def start_models(experiments: Experiments) -> dict[str, dict[Draw, Score]]:
    """Returns the scores of the initial networks before training, by label and by seed and split.

    The scores come from the evaluation before the first round, in the first run of each seed and split that has this
    evaluation. Experiments with different networks have separate rows.
    """
    found: dict[str, dict[Draw, Score]] = {}
    labels: dict[str, str] = {}
    for label, results in experiments.items():
        for result in results:
            known = {section: result.score(section, "mean", "rank1", START) for section in ("global", "local")}
            if sections := [section for section, value in known.items() if value is not None]:
                network = repr(result.run.config.model)
                labels.setdefault(network, label)
                score = lambda metric, test, r=result, s=sections[0]: r.score(s, test, metric, START)  # noqa: E731
                found.setdefault(network, {}).setdefault(result.run.draw, score)
    several = len(found) > 1
    return {f"start model{f' of {labels[key]}' * several}, not trained": start for key, start in found.items()}


def table3(experiments: Experiments, metric: str, statistic: str, kind: str, paper: bool) -> Table:
    """Returns Table 3: a metric of each kind of model on each test set and their mean, in percent.

    Args:
        metric: `rank1` or `mAP`.
        statistic: `last`, `best3` or `best`.
        kind: addition to the title, such as ", synthetic data".
        paper: whether to add rows with the paper's figures.
    """
    shown = [models for models in models_of(experiments) if _by_test_set(experiments[models.experiment], models)]
    tests = _names(experiments, shown)
    table = Table(
        "table3",
        f"Table 3: {METRICS[metric]} (%), {STATISTICS[statistic]}{kind}",
        ("models",),
        [Column(name, f"{metric}_{statistic}") for name in (*tests, "mean")],
    )
    for label, start in start_models(experiments).items():
        table.add(label, _with_mean([[one(metric, test) for test in tests] for one in start.values()], len(tests)))
    for models in shown:
        by_run = [
            [result.score(models.section, test, metric, statistic) for test in tests]
            for result in experiments[models.experiment]
        ]
        table.add(models.label, _with_mean(by_run, len(tests)))
    if paper and metric == "rank1":
        _add_paper(table, TABLE3, tests)
    return table


def table4(experiments: Experiments, statistic: str, kind: str, paper: bool) -> Table | None:
    """Returns Table 4: Rank-1 of local models minus Rank-1 of standalone training with the same seed and split.

    The differences are in points. With several standalone experiments, an experiment is compared with the one that
    differs only in the algorithm, otherwise with the first. Returns `None` if the table has no row.
    """
    alone = {name: runs for name, runs in experiments.items() if runs[0].run.role == "standalone"}
    alone = {name: runs for name, runs in alone.items() if runs[0].run.config.data.scenario == "by_dataset"}
    shown = [
        models
        for models in models_of(experiments)
        if models.section == "local"
        and experiments[models.experiment][0].run.role == "federated"
        and _by_test_set(experiments[models.experiment], models)
    ]
    if not alone or not shown:
        return None
    tests = _names(experiments, shown)
    table = Table(
        "table4",
        f"Table 4: Rank-1 of local models, difference to standalone training (points), {STATISTICS[statistic]}{kind}",
        ("experiment",),
        [Column(name, f"rank1_{statistic}_difference", "+.1f") for name in (*tests, "mean")],
    )
    for models in shown:
        base, fair = _standalone_of(experiments[models.experiment], alone)
        theirs = {result.run.draw: result for result in alone[base]}
        by_run: list[list[float | None]] = []
        for mine in experiments[models.experiment]:
            if other := theirs.get(mine.run.draw):
                scores = [
                    (mine.score("local", test, "rank1", statistic), other.score("local", test, "rank1", statistic))
                    for test in tests
                ]
                by_run.append([None if one is None or two is None else one - two for one, two in scores])
        table.add(models.experiment, _with_mean(by_run, len(tests)))
        if not fair:
            table.notes.append(f"{models.experiment} and {base} differ in more than the algorithm.")
    if table.rows:
        _add_start(table, experiments, next(iter(alone.values())), tests, statistic)
    if paper and table.rows:
        _add_paper(table, TABLE4, tests)
    return table if table.rows else None


def table2(experiments: Experiments, statistic: str, kind: str, paper: bool) -> Table | None:
    """Returns Table 2: scenarios on one dataset (by camera, by identity, merged); `None` if there is no such run."""
    table = Table(
        "table2",
        f"Table 2: scenarios, the global model (%), {STATISTICS[statistic]}{kind}",
        ("dataset", "clients", "setting", "experiment"),
        [Column(text, f"{metric}_{statistic}") for metric, text in METRICS.items()],
    )
    datasets: list[str] = []
    for label, results in experiments.items():
        run, section = results[0].run, _only_section(results[0])
        tests = results[0].tests(section)
        if run.config.data.scenario == "by_dataset" or len(tests) != 1:
            continue
        cells = [spread(result.score(section, tests[0], metric, statistic) for result in results) for metric in METRICS]
        if run.config.data.scenario == "merged":
            clients, text = "-", "centralized"
        else:
            clients, text = str(len(results[0].clients)), f"federated-{run.config.data.scenario.replace('_', '-')}"
        table.add((tests[0], clients, text, label), cells)
        datasets.append(tests[0])
    if not table.rows:
        return None
    for name in dict.fromkeys(datasets):
        for label, start in start_models(experiments).items():
            cells = [spread(one(metric, name) for one in start.values()) for metric in METRICS]
            table.add((name, "-", label, "-"), cells)
    known = [paper_name(name) or name for name in datasets]
    for (name, clients, text), figures in TABLE2.items() if paper else ():
        if name in known:
            table.add((name, clients, text, "paper"), [Cell(figure, None, 0) for figure in figures])
    cameras = {lead[0] for lead, _ in table.rows if lead[2] == "federated-by-camera" and lead[3] != "paper"}
    for name in sorted(cameras) if paper else ():
        for method, (mean_ap, rank1) in BY_CAMERA.get(left_out_name(name) or "", {}).items():
            row: list[Cell | None] = [Cell(rank1, None, 0), None, None, Cell(mean_ap, None, 0)]
            table.add((name, "-", "by camera, second hand", f"paper (PEFL): {method}"), row)
    table.rows.sort(key=lambda row: known.index(paper_name(row[0][0]) or row[0][0]))  # below ours of the same dataset
    return table


def _add_start(
    table: Table, experiments: Experiments, alone: Sequence[Result], tests: Sequence[str], statistic: str
) -> None:
    """Adds the rows of Table 4 for the initial networks."""
    for label, start in start_models(experiments).items():
        by_run: list[list[float | None]] = []
        for other in alone:
            if one := start.get(other.run.draw):
                pairs = [(one("rank1", test), other.score("local", test, "rank1", statistic)) for test in tests]
                by_run.append([None if mine is None or base is None else mine - base for mine, base in pairs])
        table.add(label, _with_mean(by_run, len(tests)))


def _only_section(result: Result) -> str:
    return "global" if result.run.role == "federated" else "local"


def _by_test_set(results: Sequence[Result], models: Models) -> bool:
    """Returns whether the models belong in Tables 3 and 4: their section has several test sets."""
    scenario = results[0].run.config.data.scenario
    if scenario in ("by_dataset", "merged"):
        return True
    return models.section == "global" and len(results[0].tests("global")) > 1


def _names(experiments: Experiments, shown: Sequence[Models]) -> list[str]:
    names = (result.tests(models.section) for models in shown for result in experiments[models.experiment])
    return list(dict.fromkeys(name for group in names for name in group))


def _with_mean(by_run: Sequence[Sequence[float | None]], tests: int) -> list[Cell | None]:
    """Returns a cell for each test set, and a cell of the mean over the test sets of the runs that have them all."""
    means = [fmean(value for value in row if value is not None) for row in by_run if None not in row and row]
    return [*(spread(row[column] for row in by_run) for column in range(tests)), spread(means)]


def _standalone_of(results: Sequence[Result], alone: Experiments) -> tuple[str, bool]:
    """Returns the name of the standalone experiment to compare with, and whether only the algorithm differs."""
    wanted = setting(results[0].run.config)
    for name, runs in alone.items():
        if any(result.run.draw == results[0].run.draw and setting(result.run.config) == wanted for result in runs):
            return name, True
    first = next(iter(alone))
    missing = all(result.run.draw != results[0].run.draw for result in alone[first])
    return first, missing  # `True` without a standalone run of this seed and split: there is nothing to compare


def _add_paper(table: Table, figures: Mapping[str, tuple[float, ...]], tests: Sequence[str]) -> None:
    for label, row in figures.items():
        values = [paper_figure(row, test) for test in tests]
        cells = [None if value is None else Cell(value, None, 0) for value in values]
        table.add(f"paper: {label}", [*cells, None])
    if any(lead[0].startswith("paper: ") for lead, _ in table.rows):
        table.notes.append("paper: the printed figures, means of the three best of evaluations every ten rounds.")
