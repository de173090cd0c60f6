"""Computes the numbers behind charts from runs over seeds; the report and the figures for papers share them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from fedreid_pl.reporting.records import Experiments, RunRecord

MEAN = "mean"
"""Name of the panel with the mean over the test sets."""

DISTANCES = {
    "cosine_distance": "distances with moving statistics",
    "cosine_distance_fixed": "distances with fixed statistics",
}
"""Cosine distances that a run records, and the names of their panels."""


class Curve(NamedTuple):
    """A mean over seeds along x, and the sample standard deviation if there are several seeds."""

    x: list[float]
    y: list[float]
    deviation: list[float] | None = None


class Line(NamedTuple):
    """Models that share one line in a chart: a section (`global` or `local`) of runs that differ only in the seed."""

    label: str
    runs: list[RunRecord]
    section: str


class Bar(NamedTuple):
    """A mean over `seeds` seeds and its sample standard deviation."""

    value: float
    deviation: float | None = None
    seeds: int = 1


Panels = dict[str, dict[str, Curve]]
"""Curves by panel (a test set or an experiment) and label."""


def lines_of(experiments: Experiments, standalone: RunRecord | None = None) -> list[Line]:
    """Returns one line per experiment; for a single run: global models, local models, and standalone training."""
    if len(experiments) > 1:
        return [Line(label, runs, runs[0].section) for label, runs in experiments.items()]
    ((label, runs),) = experiments.items()
    if runs[0].config.role != "federated":
        return [Line(f"{runs[0].config.role} ({label})", runs, "local")]
    lines = [Line("global model", runs, "global")] if runs[0].history.names("global") else []
    if runs[0].history.names("local"):
        lines.append(Line("local models", runs, "local"))
    return [*lines, *([Line("standalone", [standalone], "local")] if standalone else [])]


def test_sets(lines: Sequence[Line]) -> list[str]:
    """Returns the names of all test sets, in order of evaluation."""
    return list(dict.fromkeys(name for line in lines for run in line.runs for name in run.history.names(line.section)))


def accuracy_curves(lines: Sequence[Line], metric: str = "rank1") -> Panels:
    """Returns a metric in percent over rounds, by test set.

    If there are several test sets and all lines have the same ones, the last panel is their mean.
    """
    tests = test_sets(lines)
    own = {tuple(sorted(names)) for line in lines if (names := test_sets([line]))}
    panels: Panels = {}
    for test in [*tests, *([MEAN] if len(tests) > 1 and len(own) == 1 else [])]:
        for line in lines:
            series = [
                run.history.mean_series(line.section, metric)
                if test == MEAN
                else run.history.series(line.section, test, metric)
                for run in line.runs
            ]
            if curve := _over_seeds(series, 100):
                panels.setdefault(test, {})[line.label] = curve
    return panels


def weight_curves(experiments: Experiments) -> Panels:
    """Returns aggregation weights over rounds by experiment and client; clients that took no part have weight 0."""
    panels: Panels = {}
    for label, runs in experiments.items():
        clients = list(dict.fromkeys(name for run in runs for name in run.history.names("weights", "weight")))
        by_client = {client: [run.history.series("weights", client, "weight") for run in runs] for client in clients}
        rounds = {round for series in by_client.values() for one in series for round in one}
        for client, series in by_client.items():
            curve = _over_seeds([{round: one.get(round, 0.0) for round in rounds} for one in series], 1)
            if curve:
                panels.setdefault(label, {})[client] = curve._replace(deviation=None)
    return panels


def distance_curves(experiments: Experiments) -> Panels:
    """Returns each client's share of the cosine distances over rounds, by experiment and kind of distance.

    The kinds are distances with moving statistics (the paper's definition) and distances with fixed BatchNorm
    statistics, for runs that recorded both.
    """
    panels: Panels = {}
    for label, runs in experiments.items():
        for metric, text in DISTANCES.items():
            if not all(run.history.names("weights", "cosine_distance_fixed") for run in runs):
                continue
            clients = list(dict.fromkeys(name for run in runs for name in run.history.names("weights", metric)))
            shares = [_shares({name: run.history.series("weights", name, metric) for name in clients}) for run in runs]
            for client in clients:
                if curve := _over_seeds([one[client] for one in shares], 1):
                    panels.setdefault(f"{label}, {text}", {})[client] = curve._replace(deviation=None)
    return panels


def _shares(series: Mapping[str, Mapping[int, float]]) -> dict[str, dict[int, float]]:
    """Divides every value by the sum over the clients of its round; a client that did not take part has share 0."""
    totals: dict[int, float] = {}
    for one in series.values():
        for round, value in one.items():
            totals[round] = totals.get(round, 0.0) + value
    known = {round: total for round, total in totals.items() if total > 0}
    return {name: {round: one.get(round, 0.0) / known[round] for round in known} for name, one in series.items()}


def cmc_curves(lines: Sequence[Line]) -> Panels:
    """Returns the share of queries in percent with a match up to each rank, by test set, if it was inspected."""
    panels: Panels = {}
    for test in dict.fromkeys(name for line in lines for run in line.runs for name in _inspected(run)):
        for line in lines:
            found = [shares for run in line.runs if (shares := _cmc(run, line.section, test))]
            if curve := _over_seeds([dict(enumerate(shares, 1)) for shares in found], 100):
                panels.setdefault(test, {})[line.label] = curve
    return panels


def inspected_numbers(lines: Sequence[Line], part: str) -> dict[str, dict[str, dict[str, float]]]:
    """Returns numbers of inspections by test set, label and name: means over runs, and over the clients' own models.

    Args:
        lines: models by label.
        part: part of a test set's inspection: `open_set` or `reranked`.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for test in dict.fromkeys(name for line in lines for run in line.runs for name in _inspected(run)):
        for line in lines:
            entries = [
                numbers
                for run in line.runs
                if run.inspection
                for model, numbers in run.inspection["tests"].get(test, {}).get(part, {}).items()
                if (model == "global") == (line.section == "global")
            ]
            names = dict.fromkeys(name for entry in entries for name in entry)
            values = {name: [entry[name] for entry in entries if entry.get(name) is not None] for name in names}
            means = {name: fmean(known) for name, known in values.items() if known}
            if means:
                found.setdefault(test, {})[line.label] = means
    return found


def gaps(experiments: Experiments, standalone: RunRecord | None = None) -> dict[str, dict[str, dict[str, Bar]]]:
    """Returns Rank-1 in percent of the last evaluation by federated experiment, test set and kind of model.

    Kinds are `global`, `local` and, if there is a standalone run, `standalone`.
    """
    alone = [run for runs in experiments.values() for run in runs if run.config.role == "standalone"]
    alone = alone or ([standalone] if standalone else [])
    tables: dict[str, dict[str, dict[str, Bar]]] = {}
    for label, runs in experiments.items():
        if runs[0].config.role != "federated":
            continue
        draws = {run.draw for run in runs}
        kinds = {"global": (runs, "global"), "local": (runs, "local")}
        kinds["standalone"] = ([run for run in alone if run.draw in draws], "local")
        for test in test_sets([Line(label, runs, section) for section in ("global", "local")]):
            for kind, (of, section) in kinds.items():
                if bar := _last(of, section, test):
                    tables.setdefault(label, {}).setdefault(test, {})[kind] = bar
    return tables


def sweeps(experiments: Experiments) -> dict[str, dict[str, dict[str, Bar]]]:
    """Returns Rank-1 in percent by experiment, test set and setting, for sweeps as in the paper's Fig. 2.

    A sweep is an experiment that was run with several batch sizes or numbers of local epochs.
    """
    by_name: dict[str, dict[tuple[int, int], list[RunRecord]]] = {}
    for runs in experiments.values():
        config = runs[0].config
        by_name.setdefault(config.name, {}).setdefault((config.batch_size, config.local_epochs), runs)
    found: dict[str, dict[str, dict[str, Bar]]] = {}
    for name, settings in by_name.items():
        if len(settings) < 2:
            continue
        texts = {setting: _setting_text(setting, list(settings)) for setting in sorted(settings)}
        lines = [Line(text, settings[setting], settings[setting][0].section) for setting, text in texts.items()]
        tests = test_sets(lines)
        for test in [*tests, *([MEAN] if len(tests) > 1 else [])]:
            for line in lines:
                if bar := _last(line.runs, line.section, test):
                    found.setdefault(name, {}).setdefault(test, {})[line.label] = bar
    return found


def _setting_text(setting: tuple[int, int], all_settings: Sequence[tuple[int, int]]) -> str:
    parts = zip(("B", "E"), setting, zip(*all_settings, strict=True), strict=True)
    return ", ".join(f"{letter}={value}" for letter, value, values in parts if len(set(values)) > 1)


def costs(experiments: Experiments, value: Callable[[Mapping], Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Returns means over seeds, by experiment, of the numbers that `value` takes from `costs` of summary.json."""
    table: dict[str, dict[str, float]] = {}
    for label, runs in experiments.items():
        known = [value(run.summary["costs"]) for run in runs if "costs" in run.summary]
        if known:
            table[label] = {part: fmean(one.get(part, 0.0) for one in known) for part in known[0]}
    return table


def _last(runs: Sequence[RunRecord], section: str, test: str) -> Bar | None:
    values = []
    for run in runs:
        series = (
            run.history.mean_series(section, "rank1") if test == MEAN else run.history.series(section, test, "rank1")
        )
        trained = {round: value for round, value in series.items() if round}
        if trained:
            values.append(100 * trained[max(trained)])
    if not values:
        return None
    return Bar(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


def _over_seeds(series: Sequence[Mapping[int, float]], scale: float) -> Curve | None:
    known = [one for one in series if one]
    rounds = sorted(set(known[0]).intersection(*known[1:])) if known else []
    if not rounds:
        return None
    values = [[scale * one[round] for one in known] for round in rounds]
    deviation = [stdev(row) for row in values] if len(known) > 1 else None
    return Curve([float(round) for round in rounds], [fmean(row) for row in values], deviation)


def _inspected(run: RunRecord) -> list[str]:
    return list(run.inspection["tests"]) if run.inspection else []


def _cmc(run: RunRecord, section: str, test: str) -> list[float] | None:
    entry = run.inspection["tests"].get(test) if run.inspection else None
    if entry is None:
        return None
    own = [curve for model, curve in entry["cmcs"].items() if (model == "global") == (section == "global")]
    return [fmean(values) for values in zip(*own, strict=True)] if own else None


def unseen_bars(experiments: Experiments) -> list[tuple[str, str, Bar | None, Bar | None]]:
    """Returns experiment, test set, Rank-1 and mAP in percent of the last evaluation, for `data.leave_out`."""
    rows = []
    for label, runs in experiments.items():
        for section in ("unseen", "unseen_models"):
            for name in dict.fromkeys(name for run in runs for name in run.history.names(section)):
                rows.append(
                    (
                        label,
                        name,
                        _last_evaluation(runs, section, name, "rank1"),
                        _last_evaluation(runs, section, name, "mAP"),
                    )
                )
    return rows


def _last_evaluation(runs: Sequence[RunRecord], section: str, name: str, metric: str) -> Bar | None:
    curves = [run.history.series(section, name, metric) for run in runs]
    values = [100 * curve[max(curve)] for curve in curves if curve]
    if not values:
        return None
    return Bar(fmean(values), stdev(values) if len(values) > 1 else None, len(values))
