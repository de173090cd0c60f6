"""Comparisons: which runs are planned, what is read from their folders, and the statistics of the tables."""

from __future__ import annotations

import csv
import io
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from fedreid_pl.cli import main, run_folder
from fedreid_pl.comparison import runner
from fedreid_pl.comparison.compare import make_tables
from fedreid_pl.comparison.plan import Plan, PlannedRun, make_plan
from fedreid_pl.comparison.results import Result, read_result
from fedreid_pl.comparison.tables import Table, tidy_csv
from fedreid_pl.config import compose, to_yaml
from fedreid_pl.errors import FedReIDError
from fedreid_pl.reporting.paper import NINE, TABLE2, TABLE3, TABLE4, TABLE5, paper_name

Curves = Mapping[str, Mapping[str, list[float]]]
"""Rank-1 by section and name, one value per round from round 1."""

WORDS = ["rounds=4", "evaluate_every=1"]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def plan(exps: str, *words: str, **options: str) -> Plan:
    return make_plan({"exps": exps, **options}, words, run_folder)


def write_run(run: PlannedRun, curves: Curves, weights: Mapping[str, list[float]] | None = None, size: int = 0) -> None:
    """The files of a complete run, written without the code that reads them; mAP is half of Rank-1."""
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
        tables.setdefault(table.key, table)  # Table 3 comes twice, Rank-1 first
    return tables


def cells(table: Table) -> dict[tuple[str, str], tuple[float, float | None, int]]:
    """The tidy rows of a table, read back."""
    rows = csv.DictReader(io.StringIO(tidy_csv([table])))
    return {
        (row["row"], row["column"]): (
            float(row["mean"]),
            float(row["deviation"]) if row["deviation"] else None,
            int(row["seeds"] or 0),
        )
        for row in rows
    }


# the plan


def test_runs_are_those_of_train_with_the_same_words() -> None:
    found = plan("local fedpav+rounds=9+optim.lr_head=1e+1", "rounds=7", seeds="3 5", jobs="2")
    assert [run.name for run in found.runs] == [
        "local seed 3",
        "fedpav+rounds=9+optim.lr_head=1e+1 seed 3",
        "local seed 5",
        "fedpav+rounds=9+optim.lr_head=1e+1 seed 5",
    ]
    local, fedpav = found.runs[2], found.runs[1]
    assert local.config == compose(["exp=local", "rounds=7", "seed=5"])
    assert fedpav.config == compose(["exp=fedpav", "rounds=9", "optim.lr_head=10", "seed=3"])
    for run in found.runs:  # what `train` makes of the words that it is called with
        words = [*run.words, "resume=auto"]
        assert run.folder == run_folder(compose(words), words)
    assert (found.jobs, found.statistic, found.out) == (2, "last", Path("runs/minireid/compare"))
    assert (found.experiments, found.seeds) == ([run.experiment for run in found.runs[:2]], [3, 5])


def test_roles_are_seen_in_the_configuration_not_in_the_name(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("callbacks: {}\n")
    text = "mine.yaml mine.yaml+data.scenario=merged fedpav fedpav+callbacks.backbone_sync=null"
    assert [run.role for run in plan(text).runs] == ["standalone", "centralized", "federated", "standalone"]


@pytest.mark.parametrize(
    ("words", "hints"),
    [
        ([], ["exps="]),
        (["exps= "], ["exps="]),
        (["exps=fedpaw"], ["exp=fedpaw", "did you mean 'fedpav'"]),
        (["exps=local", "rouds=3"], ["rouds", "did you mean 'rounds'"]),
        (["exps=local fedpav+round=3"], ["round", "did you mean 'rounds'"]),
        (["exps=local", "seeds=0 x"], ["seeds=0 x"]),
        (["exps=local", "seeds="], ["seeds="]),
        (["exps=local", "seeds=1 2 1"], ["seeds=1 2 1", "twice"]),
        (["exps=local", "jobs=0"], ["jobs=0"]),
        (["exps=local", "statistic=best4"], ["best4", "did you mean 'best"]),
        (["exps=local fedpav local"], ["local", "twice"]),
        (["exps=local", "output_dir=x"], ["output_dir=x"]),
        (["exps=local+output_dir=x"], ["output_dir=x"]),
        (["exps=local", "resume=never"], ["resume=never"]),
        (["exps=local+seed=3"], ["seed=3", "seeds="]),
        (["exps=local fedpav+data=market_layout"], ["minireid, market_layout"]),
        (["exps=local one/local.yaml"], ["local", "twice"]),
        (["exps=local fedpav+callbacks.backbone_sync.batch_norm=median"], ["batch_norm=median", "average, first"]),
        (["exps=local", "data=market_layout", "data.root=/does/not/exist"], ["/does/not/exist"]),
        (["exps=local", "trainer.strategy=ddp_spawn"], ["ddp_spawn"]),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_runs(
    words: list[str], hints: list[str], tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedreid_pl.comparison.compare.load_federated_data", refuse_or_none)
    monkeypatch.setattr("fedreid_pl.comparison.compare.train_runs", lambda runs, jobs: pytest.fail("a run started"))
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "local.yaml").write_text("callbacks: {}\n")
    assert main(["compare", *words]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ") and all(hint in line for hint in hints), line
    assert captured.out == "" and not (tmp_path / "runs").exists()


def refuse_or_none(config, status):
    """In place of reading the data: the benchmark is not drawn for a test of words."""
    from fedreid_pl.data.federated import FederatedData
    from fedreid_pl.data.scenarios import locate_root

    if config.source == "folder":
        locate_root(config)
    return FederatedData(dict.fromkeys("ab"), {}, None)


# what is read


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
        change("summary.json", '"seconds"', '"minutes"'),  # of another version
        change("summary.json", '"clients"', '"parties"'),
        change("summary.json", "{", "["),
        change("config.yaml", "lr_head: 0.02", "lr_head: 0.01"),
        change("config.yaml", "evaluate_every: 1", "evaluate_every: 2"),
        change("config.yaml", "rounds:", "turns:"),
        change("metrics.csv", "4,local,a,rank1,0.4", "4,local,a"),
        change("metrics.csv", "4,local,a", "x,local,a"),
        change("metrics.csv", "\n4,", "\n3,"),
        lambda folder: (folder / "metrics.csv").unlink(),
        lambda folder: (folder / "config.yaml").unlink(),
    ],
)
def test_a_run_is_read_only_if_it_is_complete_and_the_wanted_one(spoil: Callable[[Path], None]) -> None:
    (run,) = plan("local", *WORDS).runs
    assert read_result(run) is None
    write_run(run, {"local": {"a": [0.1, 0.2, 0.3, 0.4]}})
    result = read_result(run)
    assert isinstance(result, Result) and result.score("local", "a", "mAP", "last") == pytest.approx(20.0)
    spoil(run.folder)
    assert read_result(run) is None


def test_where_a_run_is_kept_and_logged_makes_no_other_run() -> None:
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


def test_table_4_says_when_more_than_the_algorithm_differs(pair: Plan) -> None:
    wider = plan("local fedpav+batch_size=16 local+batch_size=8 fedpav+batch_size=8", *WORDS)
    for run in wider.runs[1:]:
        write_run(run, {"global": GLOBAL[0], "local": LOCAL[1] if run.role == "standalone" else LOCAL[0]})
    table = tables_of(wider)["table4"]
    found = cells(table)
    assert found["fedpav+batch_size=16", "a"][0] == pytest.approx(55 - 40), "against the first"
    assert found["fedpav+batch_size=8", "a"][0] == pytest.approx(55 - 30), "against the one of the same batch size"
    assert table.notes == ["fedpav+batch_size=16 and local differ in more than the algorithm."]


def test_a_test_set_that_some_lack_leaves_their_mean_open(pair: Plan) -> None:
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


def test_the_papers_figures_stand_beside_real_data_only() -> None:
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


def test_table_2_is_of_scenarios_over_one_dataset() -> None:
    camera = "fedpav+data.scenario=by_camera"
    one = f"data.datasets=[{MARKET}]"
    found = plan(f"fedpav {camera}+{one} centralized+{one} {camera}+data.datasets=[mine]", *REAL)
    by_dataset, by_camera, merged, other = found.runs
    write_run(by_dataset, {"global": {"x": [0.5, 0.5]}, "local": {"x": [0.5, 0.5]}})
    write_run(by_camera, {"global": {MARKET: [0.1, 0.6]}, "local": {f"c{index}": [0.3, 0.4] for index in range(6)}})
    write_run(merged, {"local": {"merged": [0.7, 0.9]}})  # the only client's name, as its test set has none of its own
    write_run(other, {"global": {"mine": [0.1, 0.2]}, "local": {"c1": [0.3, 0.4]}})
    tables = tables_of(found)
    table = tables["table2"]
    assert [lead[:3] for lead, _ in table.rows] == [
        (MARKET, "6", "federated-by-camera"),
        (MARKET, "-", "centralized"),
        ("Market", "6", "federated-by-camera"),
        ("Market", "6", "federated-by-identity"),
        ("Market", "-", "centralized"),
        ("mine", "1", "federated-by-camera"),
    ]
    rank1 = [row[0].mean for _, row in table.rows if row[0] is not None]
    assert rank1 == [pytest.approx(value) for value in (60.0, 90.0, 61.13, 85.69, 88.93, 20.0)]
    assert "table2" not in tables_of(plan("fedpav", *REAL))
    assert [column.name for column in tables["table3"].columns] == [MARKET, "x", "mean"], "no camera among them"


# the paper's figures


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("MSMT17_V1", "MSMT17"),
        ("DukeMTMC-reID", "Duke"),
        ("Market-1501-v15.09.15", "Market"),
        ("market1501", "Market"),
        ("cuhk03-np-detected", "CUHK03"),
        ("prid_2011", "PRID"),
        ("CUHK01", "CUHK01"),
        ("VIPeR.v1.0", "VIPeR"),
        ("3DPeS", "3DPeS"),
        ("QMUL-iLIDS", "iLIDS"),
        ("DukeMTMC-VideoReID", None),
        ("Occluded_Duke", None),
        ("cuhk03-np-labeled", None),
        ("prid450s", None),
        ("iLIDS-VID", None),
        ("mini-viper", None),
    ],
)
def test_folders_are_matched_to_the_papers_nine(folder: str, name: str | None) -> None:
    assert paper_name(folder) == name


def test_the_papers_tables_agree_with_each_other() -> None:
    assert all(paper_name(name) == name for name in NINE) and len(NINE) == 9
    assert all(len(row) == 9 for row in (*TABLE3.values(), *TABLE4.values()))
    for index in range(9):  # printed figures are rounded
        difference = TABLE3["FedPav, local models"][index] - TABLE3["standalone"][index]
        assert difference == pytest.approx(TABLE4["FedPav"][index], abs=0.11)
    assert all(rank1 < rank5 < rank10 for rank1, rank5, rank10, _ in TABLE2.values())
    assert all(row["GRID"] < row["CAVIAR4REID"] for row in TABLE5.values())


# the runner, with a script in place of `python -m fedreid_pl train`


def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> Path:
    """Makes the runner call a shell script; returns the file that it may note things in."""
    script, notes = tmp_path / "python", tmp_path / "notes"
    script.write_text(f"#!/bin/sh\nnotes='{notes}'\n{body}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.setattr(runner, "PAUSE", 0.01)
    return notes


def test_no_more_than_jobs_at_once_and_a_failure_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(runner, "_cores", lambda: 7)
    notes = stub(
        tmp_path,
        monkeypatch,
        'echo "start $OMP_NUM_THREADS" >> $notes; sleep 0.2; echo end >> $notes; echo "seen $*"\n'
        'case "$*" in *seed=1*) echo "error: no room" >&2; exit 2;; esac',
    )
    runs = plan("local", *WORDS, seeds="0 1 2 3").runs
    runner.train_runs(runs, jobs=2)
    lines = notes.read_text().split("\n")[:-1]
    assert lines.count("start 3") == lines.count("end") == 4, "seven cores for two"
    running = [sum(1 if line != "end" else -1 for line in lines[: index + 1]) for index in range(len(lines))]
    assert max(running) == 2
    for run in runs:
        assert (run.folder / "train.log").read_text().startswith(f"seen -m fedreid_pl train {' '.join(run.words)}")
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("run 2 of 4: local seed 1 ")]
    assert len(said) == 2 and "failed" in said[1] and "no room" in said[1] and "train.log" in said[1]


def test_a_second_attempt_shows_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (run,) = plan("local", *WORDS).runs
    run.folder.mkdir(parents=True)
    (run.folder / "train.log").write_text("error: of the first attempt\n")
    stub(tmp_path, monkeypatch, "echo Killed; exit 9")
    runner.train_runs([run], jobs=2)
    said = capsys.readouterr().err
    assert "Killed" in said and "first attempt" not in said
    assert (run.folder / "train.log").read_text() == "error: of the first attempt\nKilled\n"


def test_one_job_writes_to_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    stub(tmp_path, monkeypatch, "echo table; echo progress >&2")
    (run,) = plan("local", *WORDS).runs
    runner.train_runs([run], jobs=1)
    captured = capfd.readouterr()
    assert captured.out == "" and "table\nprogress\n" in captured.err
    assert not run.folder.exists()


def test_a_folder_that_cannot_be_made_is_one_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    notes = stub(tmp_path, monkeypatch, "echo ran >> $notes")
    runs = plan("local", *WORDS, seeds="0 1").runs
    runs[0].folder.parent.mkdir(parents=True)
    runs[0].folder.write_text("a file")
    runner.train_runs(runs, jobs=2)
    assert "local seed 0 failed" in capsys.readouterr().err and notes.read_text() == "ran\n"


def test_an_interrupt_stops_the_children_and_waits_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = stub(
        tmp_path,
        monkeypatch,
        "trap 'sleep 0.2; echo saved >> $notes; exit 130' TERM\n"
        "echo ready >> $notes; i=0; while [ $i -lt 600 ]; do sleep 0.1; i=$((i+1)); done",
    )

    class Stop(BaseException):
        pass

    stopped: list[Stop] = []
    sleep = time.sleep

    def pause(seconds: float) -> None:
        if not stopped and notes.exists() and notes.read_text().count("ready") == 2:
            stopped.append(Stop())
            raise stopped[0]
        sleep(seconds)

    monkeypatch.setattr(runner.time, "sleep", pause)
    with pytest.raises(Stop):
        runner.train_runs(plan("local", *WORDS, seeds="0 1 2").runs, jobs=2)
    assert notes.read_text().split() == ["ready", "ready", "saved", "saved"]


def test_the_folder_of_the_tables_is_checked_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from fedreid_pl.comparison import compare

    monkeypatch.setattr(compare, "load_federated_data", refuse_or_none)
    monkeypatch.setattr(compare, "train_runs", lambda runs, jobs: pytest.fail("a run started"))
    (tmp_path / "file").write_text("")
    with pytest.raises(FedReIDError, match="out=file/tables"):
        compare.compare(plan("local", *WORDS, out="file/tables"))
