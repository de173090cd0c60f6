"""Comparisons: reading the runs' folders, and the statistics of the tables."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from fedreid_pl.commands.words import run_folder
from fedreid_pl.comparison.compare import make_tables
from fedreid_pl.comparison.plan import Plan, PlannedRun, make_plan
from fedreid_pl.comparison.results import Result, read_result
from fedreid_pl.comparison.tables import Table, tidy_csv
from fedreid_pl.config import to_yaml

Curves = Mapping[str, Mapping[str, list[float]]]
"""Rank-1 by section and name, with one value per round from round 1."""

WORDS = ["rounds=4", "evaluate_every=1"]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def plan(exps: str, *words: str, **options: str) -> Plan:
    return make_plan({"exps": exps, **options}, words, run_folder)


def write_run(run: PlannedRun, curves: Curves, weights: Mapping[str, list[float]] | None = None, size: int = 0) -> None:
    """Writes the files of a complete run independently of the reading code; mAP is half of Rank-1."""
    lines = ["round,section,name,metric,value"]
    for index in range(run.config.rounds):
        for section, by_name in curves.items():
            for name, values in by_name.items():
                lines.append(f"{index + 1},{section},{name},rank1,{values[index]}")
                lines.append(f"{index + 1},{section},{name},rank5,{values[index]}")
                lines.append(f"{index + 1},{section},{name},mAP,{values[index] / 2}")
        lines += [f"{index + 1},weights,{client},weight,{series[index]}" for client, series in (weights or {}).items()]
    summary = {
        "complete": True,
        "rounds": run.config.rounds,
        "clients": dict.fromkeys(curves["local"], 10),
        "costs": {"backbone_bytes": 2_000_000, "bytes_down": size, "bytes_up": size, "seconds": {"total": 60.0}},
    }
    run.folder.mkdir(parents=True)
    (run.folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    (run.folder / "config.yaml").write_text(to_yaml(run.config))
    (run.folder / "summary.json").write_text(json.dumps(summary))


def tables_of(plan: Plan) -> dict[str, Table]:
    results = {run: result for run in plan.runs if (result := read_result(run))}
    tables: dict[str, Table] = {}
    for table in make_tables(plan, results):
        tables.setdefault(table.key, table)  # Table 3 occurs twice, with Rank-1 first
    return tables


def cells(table: Table) -> dict[tuple[str, str], tuple[float, float | None, int]]:
    """Reads the tidy rows of a table."""
    rows = csv.DictReader(io.StringIO(tidy_csv([table])))
    return {
        (row["row"], row["column"]): (
            float(row["mean"]),
            float(row["deviation"]) if row["deviation"] else None,
            int(row["seeds"] or 0),
        )
        for row in rows
    }


def write_start(run: PlannedRun, **scores: float) -> None:
    """Adds the evaluation before the first round."""
    with (run.folder / "metrics.csv").open() as file:
        head, *lines = file.read().splitlines()
    first = [f"0,global,{name},{metric},{value}" for name, value in scores.items() for metric in ("rank1", "mAP")]
    (run.folder / "metrics.csv").write_text("\n".join([head, *first, *lines]) + "\n")


def test_the_start_model_without_training_is_a_row_of_tables_3_and_4() -> None:
    made = plan("local fedpav fedpav_rw", *WORDS, seeds="0 1")
    for run in made.runs:
        curves = {"local": {"a": [0.5] * 4, "b": [0.7] * 4}}
        write_run(run, curves if run.experiment == "local" else {**curves, "global": curves["local"]})
        if run.experiment == "fedpav":
            write_start(run, a=0.2 + 0.1 * run.seed, b=0.4)
    tables = tables_of(made)
    rows = cells(tables["table3"])
    assert rows["start model, not trained", "a"] == (pytest.approx(25.0), pytest.approx(10 / 2**0.5), 2)
    assert rows["start model, not trained", "b"][0] == pytest.approx(40.0)
    assert rows["start model, not trained", "mean"][0] == pytest.approx((30 + 35) / 2)
    assert tables["table3"].rows[0][0] == ("start model, not trained",)
    assert cells(tables["table4"])["start model, not trained", "a"][0] == pytest.approx(25.0 - 50.0)
    alone = {run: result for run in made.runs if run.experiment != "fedpav" and (result := read_result(run))}
    assert "start model" not in tidy_csv(make_tables(made, alone)), "no row without an evaluation of the start model"


# reading


def change(file: str, old: str, new: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new))

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        change("summary.json", '"complete": true', '"complete": false'),
        change("summary.json", '"seconds"', '"minutes"'),  # another version
        change("summary.json", '"clients"', '"parties"'),
        change("summary.json", "{", "["),
        change("config.yaml", "lr_head: 0.05", "lr_head: 0.01"),
        change("config.yaml", "evaluate_every: 1", "evaluate_every: 2"),
        change("config.yaml", "rounds:", "turns:"),
        change("metrics.csv", "4,local,a,rank1,0.4", "4,local,a"),
        change("metrics.csv", "4,local,a", "x,local,a"),
        change("metrics.csv", "\n4,", "\n3,"),
        lambda folder: (folder / "metrics.csv").unlink(),
        lambda folder: (folder / "config.yaml").unlink(),
    ],
)
def test_only_complete_runs_of_the_right_configuration_are_read(spoil: Callable[[Path], None]) -> None:
    (run,) = plan("local", *WORDS).runs
    assert read_result(run) is None
    write_run(run, {"local": {"a": [0.1, 0.2, 0.3, 0.4]}})
    result = read_result(run)
    assert isinstance(result, Result) and result.score("local", "a", "mAP", "last") == pytest.approx(20.0)
    spoil(run.folder)
    assert read_result(run) is None


def test_the_output_folder_and_the_logger_do_not_change_a_runs_identity() -> None:
    (run,) = plan("local", *WORDS, "logger=csv").runs
    write_run(run, {"local": {"a": [0.1, 0.2, 0.3, 0.4]}})
    change("config.yaml", "logger: csv", "logger: none")(run.folder)
    assert read_result(run) is not None


# the tables

ALONE = {0: {"a": [0.1, 0.2, 0.3, 0.40], "b": [0.5, 0.6, 0.7, 0.80]}, 1: {"a": [0.1] * 4, "b": [0.9, 0.8, 0.9, 0.90]}}
GLOBAL = {0: {"a": [0.3, 0.5, 0.4, 0.2], "b": [0.2, 0.9, 0.3, 0.6]}, 1: {"a": [0.1, 0.2, 0.4, 0.3], "b": [0.5] * 4}}
LOCAL = {0: {"a": [0.4, 0.6, 0.5, 0.55], "b": [0.4, 0.5, 0.6, 0.70]}, 1: {"a": [0.3] * 4, "b": [0.7, 0.7, 0.6, 0.85]}}
WEIGHTS = {"a": [0.5, 0.6, 0.7, 0.8], "b": [0.5, 0.4, 0.3, 0.2]}


@pytest.fixture
def pair() -> Plan:
    """`local` and `fedpav`, two seeds, on the test sets a and b."""
    found = plan("fedpav local", *WORDS, seeds="0 1")
    for run in found.runs:
        if run.role == "standalone":
            write_run(run, {"local": ALONE[run.seed]})
        else:
            write_run(run, {"global": GLOBAL[run.seed], "local": LOCAL[run.seed]}, WEIGHTS, size=6_000_000)
    return found


def test_models_of_clusters_are_not_called_global(pair: Plan) -> None:
    for run in pair.runs:
        if run.role == "federated":
            path = run.folder / "metrics.csv"
            path.write_text(path.read_text() + "1,weights,a,cluster,0\n1,weights,b,cluster,1\n" * (run.seed == 1))
            text = path.read_text().splitlines()
            path.write_text("\n".join([text[0], *sorted(text[1:], key=lambda line: int(line.split(",")[0]))]) + "\n")
    rows = {row for row, _ in cells(tables_of(pair)["table3"])}
    assert rows == {"standalone (local)", "fedpav, cluster models", "fedpav, local models"}


@pytest.mark.parametrize("statistic", ["last", "best3", "best"])
def test_table_3_by_hand(pair: Plan, statistic: str) -> None:
    pair = plan("fedpav local", *WORDS, seeds="0 1", statistic=statistic)
    table = tables_of(pair)["table3"]
    found = cells(table)
    rows = {"standalone (local)": ALONE, "fedpav, global model": GLOBAL, "fedpav, local models": LOCAL}
    assert list(dict.fromkeys(row for row, _ in found)) == list(rows)
    take = {
        "last": lambda curve: curve[-1],
        "best3": lambda curve: (sum(curve) - min(curve)) / 3,  # of four evaluations
        "best": lambda curve: sorted(curve)[-1],
    }[statistic]
    for row, curves in rows.items():
        values = {test: [100 * take(curves[seed][test]) for seed in (0, 1)] for test in "ab"}
        values["mean"] = [(one + two) / 2 for one, two in zip(values["a"], values["b"], strict=True)]
        for column, numbers in values.items():
            mean, deviation, seeds = found[row, column]
            assert mean == pytest.approx(statistics.mean(numbers))
            assert deviation == pytest.approx(statistics.stdev(numbers))
            assert seeds == 2
    assert ("test data" in table.title) == (statistic != "last")
    assert "synthetic data" in table.title


def test_table_3_of_one_seed_has_no_deviation(pair: Plan) -> None:
    table = tables_of(plan("fedpav local", *WORDS))["table3"]
    assert cells(table)["fedpav, local models", "b"] == (pytest.approx(70.0), None, 1)
    assert "±" not in table.to_text()
    assert "| fedpav, local models | 55.0 | 70.0 | 62.5 |" in table.to_markdown()


def test_table_4_pairs_seeds(pair: Plan) -> None:
    found = cells(tables_of(pair)["table4"])
    differences = {"a": [55 - 40, 30 - 10], "b": [70 - 80, 85 - 90]}
    differences["mean"] = [(15 - 10) / 2, (20 - 5) / 2]
    for column, numbers in differences.items():
        mean, deviation = statistics.mean(numbers), statistics.stdev(numbers)
        assert found["fedpav", column] == (pytest.approx(mean), pytest.approx(deviation), 2)


def test_table_4_leaves_out_a_seed_without_its_pair(pair: Plan) -> None:
    (pair.runs[1].folder / "summary.json").unlink()  # local, seed 0
    table = tables_of(pair)["table4"]
    assert cells(table)["fedpav", "a"] == (pytest.approx(20.0), None, 1)
    assert table.notes == []


def test_table_4_notes_when_more_than_the_algorithm_differs(pair: Plan) -> None:
    wider = plan("local fedpav+batch_size=16 local+batch_size=8 fedpav+batch_size=8", *WORDS)
    for run in wider.runs[1:]:
        write_run(run, {"global": GLOBAL[0], "local": LOCAL[1] if run.role == "standalone" else LOCAL[0]})
    table = tables_of(wider)["table4"]
    found = cells(table)
    assert found["fedpav+batch_size=16", "a"][0] == pytest.approx(55 - 40), "compared with the first"
    assert found["fedpav+batch_size=8", "a"][0] == pytest.approx(55 - 30), (
        "compared with the run of the same batch size"
    )
    assert table.notes == ["fedpav+batch_size=16 and local differ in more than the algorithm."]


def test_a_run_without_one_of_the_test_sets_has_no_mean(pair: Plan) -> None:
    wider = plan("local fedpav+data.datasets=[a]", *WORDS)
    write_run(wider.runs[1], {"global": {"a": GLOBAL[0]["a"]}, "local": {"a": LOCAL[0]["a"]}})
    found = cells(tables_of(wider)["table3"])
    row = "fedpav+data.datasets=[a], global model"
    assert found[row, "a"][0] == pytest.approx(20.0)
    assert (row, "b") not in found and (row, "mean") not in found
    assert ("standalone (local)", "mean") in found


def test_fluctuation_and_largest_drop_by_hand(pair: Plan) -> None:
    found = cells(tables_of(pair)["fluctuation"])
    # the second half of four evaluations is the last two; seed 0: a 0.4 -> 0.2, b 0.3 -> 0.6; seed 1: a 0.4 -> 0.3
    numbers = [(20 + 30) / 2, (10 + 0) / 2]
    row = "fedpav, global model"
    assert found[row, "fluctuation"] == (
        pytest.approx(statistics.mean(numbers)),
        pytest.approx(statistics.stdev(numbers)),
        2,
    )
    assert found[row, "largest drop"] == (pytest.approx((60 + 10) / 2), pytest.approx(statistics.stdev([60, 10])), 2)
    assert (found[row, "evaluations (2nd half)"][0], found[row, "evaluations (all)"][0]) == (2, 4)
    assert found["standalone (local)", "largest drop"][0] == pytest.approx((0 + 10) / 2)


def test_fluctuation_needs_two_evaluations_in_the_second_half() -> None:
    short = plan("local", "rounds=2", "evaluate_every=1")
    write_run(short.runs[0], {"local": {"a": [0.5, 0.2]}})
    found = cells(tables_of(short)["fluctuation"])
    assert ("standalone (local)", "fluctuation") not in found
    assert found["standalone (local)", "largest drop"] == (pytest.approx(30.0), None, 1)


def test_communication_and_weights_by_hand(pair: Plan) -> None:
    tables = tables_of(pair)
    found = cells(tables["communication"])
    assert found["fedpav", "backbone MB"][0] == 2.0
    assert found["fedpav", "MB in total"][0] == 12.0 and found["fedpav", "MB per client"][0] == 6.0
    assert found["local", "MB in total"][0] == 0.0 and found["local", "seconds"][0] == 60.0
    weights = cells(tables["weights"])
    assert weights["fedpav, mean", "a"][0] == pytest.approx(0.65) and weights["fedpav, last round", "b"][0] == 0.2
    assert {row for row, _ in weights} == {"fedpav, mean", "fedpav, last round"}


REAL = ["data=market_layout", "data.root=/datasets", "rounds=2", "evaluate_every=1"]
MARKET = "Market-1501-v15.09.15"


def test_the_papers_numbers_are_shown_for_real_data_only() -> None:
    names = (MARKET, "VIPeR", "mine")
    for words, quoted in (REAL, True), ([*WORDS[1:], "rounds=2"], False):
        found = plan("local fedpav", *words)
        for run in found.runs:
            curves = {name: [0.5, 0.6] for name in names}
            write_run(run, {"local": curves} if run.role == "standalone" else {"global": curves, "local": curves})
        tables = tables_of(found)
        assert ("synthetic" in tables["table3"].title) is not quoted
        table3, table4 = cells(tables["table3"]), cells(tables["table4"])
        assert ("paper: standalone" in {row for row, _ in table3}) is quoted
        if quoted:
            assert table3["paper: standalone", MARKET] == (88.9, None, 0)
            assert table4["paper: CC & CDW", "VIPeR"] == (28.2, None, 0)
            assert ("paper: standalone", "mine") not in table3


PEFL = (90.0, 59.4, 55.7, 63.1, 66.4)
"""Rank-1 of Market-1501 by camera for centralized, baseline, MOON, DACS and the method, from notes on the paper."""


def test_table_2_compares_scenarios_over_one_dataset() -> None:
    camera = "fedpav+data.scenario=by_camera"
    one = f"data.datasets=[{MARKET}]"
    found = plan(f"fedpav {camera}+{one} centralized+{one} {camera}+data.datasets=[mine]", *REAL)
    by_dataset, by_camera, merged, other = found.runs
    write_run(by_dataset, {"global": {"x": [0.5, 0.5]}, "local": {"x": [0.5, 0.5]}})
    write_run(by_camera, {"global": {MARKET: [0.1, 0.6]}, "local": {f"c{index}": [0.3, 0.4] for index in range(6)}})
    write_run(
        merged, {"local": {"merged": [0.7, 0.9]}}
    )  # named after the only client, because its test set has no name
    write_run(other, {"global": {"mine": [0.1, 0.2]}, "local": {"c1": [0.3, 0.4]}})
    tables = tables_of(found)
    table = tables["table2"]
    assert [lead[:3] for lead, _ in table.rows] == [
        (MARKET, "6", "federated-by-camera"),
        (MARKET, "-", "centralized"),
        ("Market", "6", "federated-by-camera"),
        ("Market", "6", "federated-by-identity"),
        ("Market", "-", "centralized"),
        *[(MARKET, "-", "by camera, second hand")] * 5,
        ("mine", "1", "federated-by-camera"),
    ]
    rank1 = [row[0].mean for _, row in table.rows if row[0] is not None]
    assert rank1 == [pytest.approx(value) for value in (60.0, 90.0, 61.13, 85.69, 88.93, *PEFL, 20.0)]
    assert "table2" not in tables_of(plan("fedpav", *REAL))
    assert [column.name for column in tables["table3"].columns] == [MARKET, "x", "mean"], (
        "cameras are not among the columns"
    )
