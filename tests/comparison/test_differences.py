"""Differences to a baseline in comparisons: the table compared with scipy, the option, the forest plot."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from fedreid_pl.cli import main
from fedreid_pl.commands.words import run_folder
from fedreid_pl.comparison.compare import make_tables
from fedreid_pl.comparison.plan import Plan, PlannedRun, make_plan
from fedreid_pl.comparison.report import comparison_report, forests_of, report_of
from fedreid_pl.comparison.results import read_result
from fedreid_pl.comparison.tables import Table, tidy_csv
from fedreid_pl.config import to_yaml
from fedreid_pl.errors import FedReIDError
from fedreid_pl.reporting.escaping import csv_text
from fedreid_pl.reporting.html.forest import Interval, forest_chart
from fedreid_pl.reporting.records import read_run

SEEDS = 5
GAIN = {"fedprox": [3.0, 4.0, 3.5, 2.5, 4.5], "scaffold": [1.0, -2.0, 0.5, 3.0, -1.0], "local": [-5.0] * 4 + [-6.0]}
"""Points above the baseline by seed, equal on both test sets and in both metrics."""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def plan(exps: str, **options: str) -> Plan:
    words = ["rounds=4", "evaluate_every=1"]
    return make_plan({"exps": exps, "seeds": " ".join(map(str, range(SEEDS))), **options}, words, run_folder)


def write_run(run: PlannedRun, gain: float, swing: float, tests: str = "ab") -> None:
    """Writes a complete run whose scores end at 50 % + `gain` and change by `swing` points between evaluations."""
    sections = ("local",) if run.role == "standalone" else ("global", "local")
    curve = [0.5 + (gain - swing * (round % 2)) / 100 for round in (1, 2, 3, 4)]
    rows = [
        [round, section, test, metric, value + (test == "b") / 10]
        for round, value in enumerate(curve, 1)
        for section in sections
        for test in tests
        for metric in ("rank1", "mAP")
    ]
    costs = {"backbone_bytes": 1, "bytes_down": 1, "bytes_up": 1, "seconds": {"total": 60.0}}
    summary = {"complete": True, "rounds": 4, "clients": dict.fromkeys(tests, 10), "costs": costs}
    run.folder.mkdir(parents=True)
    (run.folder / "metrics.csv").write_text(csv_text(["round", "section", "name", "metric", "value"], rows))
    (run.folder / "config.yaml").write_text(to_yaml(run.config))
    (run.folder / "summary.json").write_text(json.dumps(summary))


@pytest.fixture
def made() -> Plan:
    found = plan("scaffold fedpav fedprox local")
    for run in found.runs:
        gain = GAIN.get(run.experiment, [0.0] * SEEDS)[run.seed]
        write_run(run, gain + run.seed, 2.0 - (run.experiment == "fedprox") * (1 + 0.01 * run.seed))
    return found


def table_of(plan: Plan) -> Table:
    results = {run: result for run in plan.runs if (result := read_result(run))}
    return next(table for table in make_tables(plan, results) if table.key == "difference")


def cells(table: Table) -> dict[tuple[str, str], float]:
    rows = csv.DictReader(io.StringIO(tidy_csv([table])))
    return {(row["row"], row["column"]): float(row["mean"]) for row in rows}


def verdicts(table: Table) -> dict[tuple[str, str], str]:
    return {(lead[0], lead[1]): lead[2] for lead, _ in table.rows}


def test_intervals_and_holm_against_scipy(made: Plan) -> None:
    table = table_of(made)
    found, said = cells(table), verdicts(table)
    ps = {}
    for name, gains in GAIN.items():
        row = f"{name}, local, Rank-1, {said[name, 'local, Rank-1']}"
        percentile = stats.bootstrap((gains,), np.mean, n_resamples=40_000, method="percentile", rng=1)
        stretch = stats.t.ppf(0.975, SEEDS - 1) / stats.norm.ppf(0.975) * math.sqrt(SEEDS / (SEEDS - 1))
        mean = np.mean(gains)
        assert found[row, "difference"] == pytest.approx(mean)
        for column, end in zip(("low", "high"), percentile.confidence_interval, strict=True):
            assert found[row, column] == pytest.approx(mean + stretch * (end - mean), abs=0.12)
        assert found[row, "seeds"] == SEEDS
        ps[name] = found[row, "p"], found[row, "p, Holm"]
    order = sorted(ps, key=lambda name: ps[name][0])
    adjusted = np.maximum.accumulate([(len(order) - rank) * ps[name][0] for rank, name in enumerate(order)])
    assert [ps[name][1] for name in order] == pytest.approx(np.minimum(adjusted, 1))


def test_verdicts_and_the_models_of_each_experiment(made: Plan) -> None:
    said = verdicts(table_of(made))
    for measure in ("global, Rank-1", "local, Rank-1", "global, mAP", "local, mAP"):
        assert said["fedprox", measure] == "better"
        assert said["scaffold", measure] == "cannot tell"
    assert said["local", "local, mAP"] == "worse"
    assert ("local", "global, mAP") not in said
    assert said["fedprox", "global, fluctuation"] == "better", "its scores fluctuate less"
    assert said["scaffold", "global, fluctuation"] == "cannot tell"
    text = table_of(made).to_text()
    assert "Difference to fedpav (points), last evaluation, synthetic data" in text and "cannot tell" in text


def test_another_baseline_changes_the_sign(made: Plan) -> None:
    table = table_of(plan("scaffold fedpav fedprox local", baseline="fedprox"))
    row = f"fedpav, local, mAP, {verdicts(table)['fedpav', 'local, mAP']}"
    assert cells(table)[row, "difference"] == pytest.approx(-3.5)
    assert verdicts(table)["fedpav", "local, mAP"] == "worse"


def test_without_fedpav_the_first_is_the_baseline(made: Plan) -> None:
    assert "Difference to scaffold" in table_of(plan("scaffold fedprox")).title
    assert plan("fedpav+optim.lr_head=0.1 local").base == "fedpav+optim.lr_head=0.1"


def test_a_single_seed_has_no_interval(made: Plan) -> None:
    table = table_of(plan("fedpav fedprox", seeds="0"))
    assert set(verdicts(table).values()) == {"cannot tell"}
    assert {column for _, column in cells(table)} == {"difference", "seeds"}
    assert all(row.low is None for rows in forests_of(table).values() for row in rows.values())


def test_means_are_over_the_test_sets_that_both_have() -> None:
    found = plan("fedpav fedpav_large")
    for run in found.runs:
        large = run.experiment == "fedpav_large"
        write_run(run, 2.0 if large else 1.0, 0.0, tests="b" if large else "ab")
    table = table_of(found)
    row = f"fedpav_large, global, Rank-1, {verdicts(table)['fedpav_large', 'global, Rank-1']}"
    assert cells(table)[row, "difference"] == pytest.approx(1.0), "not 6, which would include that b is easier"
    assert "fedpav_large: the means are over the 1 test sets that it shares with fedpav." in table.notes


def test_an_unknown_baseline_is_refused_in_one_line(capsys: pytest.CaptureFixture) -> None:
    assert main(["compare", "exps=local fedpav", "baseline=fedpaw"]) == 2
    error = capsys.readouterr().err
    assert error == "error: baseline=fedpaw: is not among the experiments, did you mean 'fedpav'?\n"
    with pytest.raises(FedReIDError, match=r"baseline=centralized: .*; known: fedpav, local"):
        plan("local fedpav", baseline="centralized")


def test_the_report_has_a_forest_plot_with_the_chosen_baseline(made: Plan, tmp_path: Path) -> None:
    chosen = plan("scaffold fedpav fedprox local", baseline="fedprox")
    results = {run: result for run in chosen.runs if (result := read_result(run))}
    tables = make_tables(chosen, results)
    groups: dict = {}
    for run in chosen.runs:
        groups.setdefault(run.group, []).append(read_run(run.folder))
    page = comparison_report(groups, tables, "last").to_html()
    assert page.count("difference (points), local, Rank-1") == 1
    assert re.search(r"scaffold: -3.2 \(-[\d.]+ to -?\+?[\d.]+\)", page)
    place = tmp_path / "tables"
    place.mkdir()
    rows = [[run.experiment, run.seed, 0, run.folder] for run in chosen.runs]
    (place / "runs.csv").write_text(csv_text(["experiment", "seed", "split", "folder"], rows))
    (place / "tables.csv").write_text(tidy_csv(tables))
    assert any("Difference to fedprox" in title for title in report_of([place]).forests)


def test_the_zero_line_and_the_whiskers_match_the_numbers() -> None:
    rows = {"a": Interval(2.0, 1.0, 3.0, "better"), "b": Interval(-1.0, -2.0, 0.0, "cannot tell")}
    chart = str(forest_chart(rows, "points", "t"))
    zero = float(re.search(r'class="link" d="M([\d.]+),', chart)[1])  # type: ignore[index]
    spans = [tuple(map(float, ends)) for ends in re.findall(r'class="whisker" d="M([\d.]+),[\d.]+L([\d.]+),', chart)]
    point = (spans[0][1] - spans[0][0]) / 2
    assert spans[0] == (pytest.approx(zero + point, abs=0.2), pytest.approx(zero + 3 * point, abs=0.2))
    assert spans[1] == (pytest.approx(zero - 2 * point, abs=0.2), pytest.approx(zero, abs=0.2))
