"""Trains on small versions of the paper's nine datasets, with the authors' folders and file names."""

from __future__ import annotations

import csv
import json
from collections import Counter
from itertools import combinations
from pathlib import Path

import layouts
import pytest

from fedreid_pl.cli import main

pytestmark = pytest.mark.system

FOLDERS = {
    "MSMT17": "MSMT17_V1",
    "DukeMTMC-reID": "DukeMTMC-reID",
    "Market-1501": "Market-1501-v15.09.15",
    "CUHK03-NP": "cuhk03-np/detected",
    "PRID2011": "prid_2011",
    "CUHK01": "CUHK01",
    "VIPeR": "VIPeR",
    "3DPeS": "3DPeS",
    "i-LIDS": "i-LIDS_Pedestrian",
}
MINIATURES = {name: layouts.MINIATURES[folder]() for name, folder in FOLDERS.items()}
TWO = ("CUHK03-NP", "PRID2011")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Creates the nine datasets, the public CUHK02, and a folder without a dataset."""
    root = tmp_path_factory.mktemp("fedreidbench")
    for name, folder in FOLDERS.items():
        layouts.write(MINIATURES[name], root / folder)
    layouts.write(layouts.MINIATURES["CUHK02"](), root / "CUHK02")
    (root / "downloads").mkdir()
    return root


def train(bench: Path, output: Path, *words: str) -> tuple[dict, list[dict[str, str]]]:
    """Trains two rounds of ResNet-18 on small images; returns the summary and the rows of metrics.csv."""
    settings = [
        f"data.root={bench}",
        "data.layout=auto",
        "data.height=64",
        "data.width=32",
        "data.pad=2",
        "optim.lr_backbone=0.0001",  # BatchNorm's gradients are thousands of times larger in a last batch of two images
        "optim.lr_head=0.001",
        "model.name=resnet18",
        "model.weights=none",
        "trainer.accelerator=cpu",
        "batch_size=8",
        "rounds=2",
        "logger=none",
        f"output_dir={output}",
    ]
    assert main(["train", "exp=fedpav", "data=fedreidbench", *settings, *words]) == 0
    with open(output / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return json.loads((output / "summary.json").read_text()), rows


def possible_sizes(mini: layouts.Miniature) -> set[int]:
    """Returns the possible numbers of training images, over all choices of training persons that are not recorded."""
    if mini.protocol is None:
        return {sum(shot.split == layouts.TRAIN for shot in mini.shots)}
    if mini.protocol.recorded is not None:
        return {sum(person in mini.protocol.recorded for person in mini.persons.values())}
    choices = map(frozenset, combinations(sorted(mini.protocol.persons), mini.protocol.trained))
    draws = (mini.protocol.draws(trained) for trained in choices)
    return {sum(draw.take for draw in own if draw.split == layouts.TRAIN) for own in draws}


def check_run(summary: dict, rows: list[dict[str, str]], tests: set[str]) -> None:
    """Asserts that both rounds averaged by the numbers of images, and that every test set and client has scores."""
    clients = summary["clients"]
    assert summary["rounds"] == 2 and summary["complete"] and not summary["synthetic"]
    weights = {(row["round"], row["name"]): float(row["value"]) for row in rows if row["metric"] == "weight"}
    total = sum(clients.values())
    assert weights == {(r, name): pytest.approx(size / total) for r in "12" for name, size in clients.items()}
    assert set(summary["global"]) == {*tests, "mean"} and set(summary["local"]) == {*clients, "mean"}
    for scores in (*summary["global"].values(), *summary["local"].values()):
        assert 0 <= scores["rank1"]["last"] <= scores["rank5"]["last"] <= scores["rank10"]["last"] <= 1
        assert 0 < scores["mAP"]["last"] <= 1


def test_the_nine_datasets_in_their_distributed_layout(bench: Path, tmp_path: Path) -> None:
    summary, rows = train(bench, tmp_path)
    assert list(summary["clients"]) == list(FOLDERS)
    for name, mini in MINIATURES.items():
        assert summary["clients"][name] in possible_sizes(mini), name
    check_run(summary, rows, set(FOLDERS))


def test_by_camera(bench: Path, tmp_path: Path) -> None:
    summary, rows = train(bench, tmp_path, f"data.datasets=[{','.join(TWO)}]", "data.scenario=by_camera")
    assert list(summary["clients"]) == [f"{name}-cam{camera}" for name in TWO for camera in (1, 2)]
    images = Counter(shot.camera for shot in MINIATURES["CUHK03-NP"].shots if shot.split == layouts.TRAIN)
    assert [summary["clients"][f"CUHK03-NP-cam{camera}"] for camera in (1, 2)] == [images[1], images[2]]
    check_run(summary, rows, set(TWO))


def test_by_identity(bench: Path, tmp_path: Path) -> None:
    summary, rows = train(bench, tmp_path, f"data.datasets=[{','.join(TWO)}]", "data.scenario=by_identity")
    assert list(summary["clients"]) == [f"{name}-ids{part}" for name in TWO for part in (1, 2)]
    for name in TWO:
        sizes = [size for client, size in summary["clients"].items() if client.startswith(name)]
        assert sum(sizes) in possible_sizes(MINIATURES[name])
    check_run(summary, rows, set(TWO))
