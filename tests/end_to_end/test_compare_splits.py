"""Datasets with ten customary splits: every experiment on every split, paired by split, with the mean over all."""

from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path

import layouts
import pytest

from fedreid_pl.cli import main

pytestmark = pytest.mark.system

NAMES = ("VIPeR", "CUHK01")


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """Returns settings: two datasets whose halves are drawn, small images, one round."""
    for name in NAMES:
        layouts.write(layouts.MINIATURES[name](), tmp_path / "data" / name)
    return [
        *("data=fedreidbench", f"data.root={tmp_path / 'data'}", f"data.datasets=[{','.join(NAMES)}]"),
        *("data.public=null", "data.height=32", "data.width=16", "data.pad=2", "model.name=small"),
        *("model.weights=none", "trainer.accelerator=cpu", "batch_size=4", "rounds=1", "logger=none"),
    ]


def test_every_experiment_on_every_split(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "exps=local fedpav", "splits=3", "jobs=2", "out=tables", *words]) == 0
    printed = capsys.readouterr()
    assert "seed 0, splits 0 to 2; mean ± sample standard deviation over splits" in printed.out
    assert "fedpav seed 0 split 2 starts" in printed.err
    with open("tables/runs.csv", newline="") as file:
        runs = {(row["experiment"], int(row["split"])): Path(row["folder"]) for row in csv.DictReader(file)}
    assert set(runs) == {(name, split) for name in ("local", "fedpav") for split in range(3)}
    digests = {run: json.loads((folder / "splits.json").read_text()) for run, folder in runs.items()}
    for split in range(3):
        assert digests["local", split] == digests["fedpav", split], "both runs of a pair use the same images"
    assert len({json.dumps(digests["local", split]) for split in range(3)}) == 3

    for (_, split), folder in runs.items():
        for test in NAMES:
            with open(folder / "splits" / f"{test}.csv", newline="") as file:
                rows = list(csv.DictReader(file))
            counts = {name: sum(row["split"] == name for row in rows) for name in ("train", "query", "gallery")}
            assert {name: digests["local", split][test][name] for name in counts} == counts

    def rank1(name: str, split: int, test: str) -> float:
        summary = json.loads((runs[name, split] / "summary.json").read_text())
        return 100 * summary["local"][test]["rank1"]["last"]

    with open("tables/tables.csv", newline="") as file:
        cells = {(row["table"], row["row"], row["column"]): row for row in csv.DictReader(file)}
    for test in NAMES:
        gains = [rank1("fedpav", split, test) - rank1("local", split, test) for split in range(3)]
        cell = cells["table4", "fedpav", test]
        assert float(cell["mean"]) == pytest.approx(statistics.mean(gains), abs=1e-6)
        assert float(cell["deviation"]) == pytest.approx(statistics.stdev(gains), abs=1e-6)
        assert cell["seeds"] == "3"


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["splits=1"], "splits=1: give the number of splits, 2 to 1000"),
        (["splits=ten"], "splits=ten: give the number of splits"),
        (["splits=2", "data.split=1"], "splits=2: conflicts with data.split"),
    ],
)
def test_invalid_words_are_refused(options: list[str], hint: str, words, capsys: pytest.CaptureFixture) -> None:
    assert main(["compare", "exps=local", *options, *words]) == 2
    assert hint in capsys.readouterr().err


def test_datasets_of_one_split_are_refused(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    data = [
        "data=market_layout",
        f"data.root={tiny_root}",
        "data.public=mini-cuhk02",
        "model.name=small",
        "model.weights=none",
    ]
    assert main(["compare", "exps=local", "splits=2", *data]) == 2
    said = capsys.readouterr().err.strip()
    assert said == "error: splits=2: data=market_layout has one split only" and not (tmp_path / "runs").exists()
