"""`fedreid-pl compare` with real runs: what is missing is trained, what is there is used, what fails is named."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import support

from fedreid_pl.cli import main

EXPERIMENTS = ("fedpav", "local")


class Said(NamedTuple):
    code: int
    out: str
    err: str


def compare(root: Path, folder: Path, *words: str) -> Said:
    """One comparison of two experiments over two seeds, called in `folder`."""
    common = [word for word in support.quick(root, folder) if not word.startswith("output_dir=")]
    out, err = io.StringIO(), io.StringIO()
    before = Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(["compare", f"exps={' '.join(EXPERIMENTS)}", "seeds=0 1", *common, *words])
    finally:
        os.chdir(before)
    return Said(code, out.getvalue(), err.getvalue())


def folders(folder: Path) -> Iterator[tuple[str, int, Path]]:
    with open(folder / "runs" / "minireid" / "compare" / "runs.csv", newline="") as file:
        for row in csv.DictReader(file):
            yield row["experiment"], int(row["seed"]), folder / row["folder"]


def times(folder: Path) -> dict[Path, int]:
    return {
        path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and "compare" not in path.parts
    }


@pytest.fixture(scope="module")
def trained(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """A folder in which the comparison has been made with two runs at a time."""
    folder = tmp_path_factory.mktemp("comparison")
    return folder, compare(tiny_root, folder, "jobs=2")


def test_the_first_call_trains_everything(trained: tuple[Path, Said]) -> None:
    folder, said = trained
    assert said.code == 0, said.err
    assert sum(" starts, " in line for line in said.err.splitlines()) == 4
    assert sum(" is done after " in line for line in said.err.splitlines()) == 4
    last: dict[str, list[float]] = {name: [] for name in EXPERIMENTS}
    for experiment, _, place in folders(folder):
        summary = json.loads((place / "summary.json").read_text())
        assert summary["complete"] and summary["name"] == experiment
        assert "2 rounds" in (place / "train.log").read_text()
        last[experiment].append(100 * summary["local"]["mini-market1501"]["rank1"]["last"])
    with open(folder / "runs" / "minireid" / "compare" / "tables.csv", newline="") as file:
        rows = {(row["table"], row["row"], row["column"], row["metric"]): row for row in csv.DictReader(file)}
    for name, numbers in (("standalone (local)", last["local"]), ("fedpav, local models", last["fedpav"])):
        row = rows["table3", name, "mini-market1501", "rank1_last"]
        assert float(row["mean"]) == pytest.approx(statistics.mean(numbers))
        assert float(row["deviation"]) == pytest.approx(statistics.stdev(numbers))
    assert rows.keys() >= {("table4", "fedpav", "mean", "rank1_last_difference")}
    titles = [line for line in said.out.splitlines() if line.startswith(("Table", "Fluctuation", "Communication"))]
    assert len(titles) == 5 and all("synthetic data" in title for title in titles)
    assert (folder / "runs" / "minireid" / "compare" / "tables.md").read_text().count("\n## ") == 6


def test_the_second_call_trains_nothing_and_prints_the_same(trained: tuple[Path, Said], tiny_root: Path) -> None:
    folder, first = trained
    before = times(folder)
    assert compare(tiny_root, folder, "jobs=2") == Said(0, first.out, "")
    best = compare(tiny_root, folder, "statistic=best3", "out=elsewhere")
    assert best.code == 0 and "selected on test data" in best.out and (folder / "elsewhere" / "tables.md").exists()
    assert {path: time for path, time in times(folder).items() if "elsewhere" not in path.parts} == before


def test_a_run_that_fails_is_named_and_the_others_go_on(
    trained: tuple[Path, Said], tiny_root: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained[0], folder)
    places = {(experiment, seed): place for experiment, seed, place in folders(folder)}
    config = places["fedpav", 1] / "config.yaml"  # the folder now belongs to another configuration
    config.write_text(config.read_text().replace("lr_head: 0.02", "lr_head: 0.5"))
    (places["local", 1] / "summary.json").unlink()  # as if it was killed; it comes after the one that fails
    said = compare(tiny_root, folder, "jobs=1")
    assert said.code == 2
    child = capfd.readouterr().err
    assert "optim.lr_head differ" in child and "Traceback" not in child
    assert said.err.splitlines()[-1].startswith("error: 1 of 4 runs are missing: fedpav seed 1 (runs/minireid/fedpav/")
    assert (places["local", 1] / "summary.json").exists()
    assert "WITHOUT fedpav seed 1" in said.out and "fedpav, global model" in said.out
    alone = [line for line in trained[1].out.splitlines() if line.startswith("standalone (local)")]
    assert alone and all(line.split() in [row.split() for row in said.out.splitlines()] for line in alone)
