"""Experiments of all kinds through the command line: two rounds, a table, the files of a run."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import support

from fedreid_pl.cli import main


# no server model, one client, one model, a model per cluster, a refined model; test_every_experiment.py tests all
@pytest.mark.parametrize("exp", ["local", "centralized", "fedpav", "fedpav_cc", "fedpav_kd_rw"])
def test_experiment_runs_two_rounds(exp: str, tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["train", f"exp={exp}", *support.quick(tiny_root, tmp_path / "run")]) == 0
    printed = capsys.readouterr()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["rounds"] == 2 and summary["complete"] and summary["synthetic"]
    federated = bool(summary["callbacks"])
    assert set(summary["local"]) == {*support.TINY, "mean"}
    assert set(summary["global"]) == ({*support.TINY, "mean"} if federated else set())
    for section in ("global", "local") if federated else ("local",):
        for name in support.TINY:
            scores = summary[section][name]
            assert 0 <= scores["rank1"]["last"] <= scores["rank5"]["last"] <= scores["rank10"]["last"] <= 1
            assert 0 < scores["mAP"]["last"] <= 1
            assert f"{100 * scores['rank1']['last']:.1f}" in printed.out
    assert "synthetic" in printed.out
    rounds = [line for line in printed.err.splitlines() if line.startswith("round ")]
    assert len(rounds) == 2, "one line per round if the output is not a terminal"
    assert "GPU available" not in printed.err + printed.out


def test_metrics_csv_agrees_with_the_summary(tiny_root: Path, tmp_path: Path) -> None:
    assert main(["train", "exp=fedpav_rw", *support.quick(tiny_root, tmp_path)]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    with open(tmp_path / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for section in ("global", "local"):
        for name in support.TINY:
            curve = [
                (int(row["round"]), float(row["value"]))
                for row in rows
                if (row["section"], row["name"], row["metric"]) == (section, name, "rank1")
            ]
            assert [number for number, _ in curve] == ([0, 1, 2] if section == "global" else [1, 2])
            assert curve[-1][1] == summary[section][name]["rank1"]["last"]
    weights = [float(row["value"]) for row in rows if row["metric"] == "weight" and row["round"] == "2"]
    assert sum(weights) == pytest.approx(1.0)
    size = summary["costs"]["backbone_bytes"]
    assert summary["costs"]["bytes_up"] == summary["costs"]["bytes_down"] == 2 * 3 * size


def test_the_seed_determines_the_summary(tiny_root: Path, tmp_path: Path) -> None:
    summaries = []
    for number, seed in enumerate((1, 1, 2)):
        words = support.quick(tiny_root, tmp_path / str(number), f"seed={seed}")
        assert main(["train", "exp=fedpav_rw", *words]) == 0
        summary = json.loads((tmp_path / str(number) / "summary.json").read_text())
        summaries.append(support.without_times(summary))
    assert summaries[0] == summaries[1]
    assert summaries[0]["local"] != summaries[2]["local"]


def test_clients_per_round_trains_only_those_drawn(tiny_root: Path, tmp_path: Path) -> None:
    words = support.quick(tiny_root, tmp_path, "clients_per_round=1", "rounds=3")
    assert main(["train", "exp=fedpav", *words]) == 0
    with open(tmp_path / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "weight"]
    assert [row["round"] for row in rows] == ["1", "2", "3"]
    assert all(float(row["value"]) == 1.0 for row in rows)


def test_evaluate_repeats_the_scores_of_the_run(tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for exp, section in (("fedpav", "global"), ("local", "local")):
        folder = tmp_path / exp
        assert main(["train", f"exp={exp}", *support.quick(tiny_root, folder)]) == 0
        summary = json.loads((folder / "summary.json").read_text())
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        capsys.readouterr()
        assert main(["evaluate", f"run={folder}"]) == 0
        table = capsys.readouterr().out
        for name in support.TINY:
            scores = summary[section][name]
            line = next(line for line in table.splitlines() if line.startswith(name))
            assert line.split()[1:] == [f"{100 * scores[key]['last']:.1f}" for key in ("rank1", "mAP")]
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before, "evaluation writes no file"


def test_the_table_compares_with_a_standalone_run_in_the_same_folder(
    tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for exp in ("local", "fedpav"):
        assert main(["train", f"exp={exp}", *support.quick(tiny_root, tmp_path / exp / "seed0")]) == 0
    assert "local-alone" in capsys.readouterr().out


def test_bf16_and_finished_run_is_not_trained_again(
    tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["train", "exp=fedpav", *support.quick(tiny_root, tmp_path, "trainer.precision=bf16-mixed", "rounds=1")]
    assert main(words) == 0
    checkpoint = tmp_path / "checkpoints" / "round-00001.ckpt"
    stamp = checkpoint.stat().st_mtime_ns
    first = capsys.readouterr().out
    assert main(words) == 0
    assert capsys.readouterr().out == first
    assert checkpoint.stat().st_mtime_ns == stamp
