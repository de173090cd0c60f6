"""A run with all training options that are off by default, and the limits of schedules over the whole run."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import support

from fedreid_pl.cli import main
from fedreid_pl.federation.storage import read_state

OPTIONS = (
    "model.neck=bnneck",
    "data.instances=2",
    "optim.schedule=cosine",
    "optim.warmup=1",
    "optim.bottleneck=head",
    "loss.label_smoothing=0.1",
    "loss.triplet=1.0",
    "loss.margin=null",
    "local_epochs=2",
)


def test_a_run_with_all_options_refuses_another_number_of_rounds(
    tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = support.quick(tiny_root, tmp_path, "trainer.accelerator=cpu", *OPTIONS)
    assert main(["train", "exp=fedpav_rw", *words]) == 0
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    triplets = [row for row in rows if row["metric"] == "triplet"]
    assert {(row["round"], row["name"]) for row in triplets} == {(r, name) for r in "12" for name in support.TINY}
    assert all(0 < float(row["value"]) < 100 for row in triplets)
    scores = [float(row["value"]) for row in rows if row["metric"] == "mAP"]
    assert scores and all(0 < score <= 1 for score in scores)
    model = read_state(tmp_path / "checkpoints" / "round-00002.ckpt")["models"]["global"]
    assert model["bottleneck.weight"].shape == (64,) and "bottleneck.bias" not in model
    for client in support.TINY:
        head = read_state(tmp_path / "clients" / client / "round-00002.pt")["head"]
        assert list(head) == ["weight"] and head["weight"].shape[1] == 64

    capsys.readouterr()
    before = (tmp_path / "metrics.csv").read_bytes()
    assert main(["train", "exp=fedpav_rw", *words, "rounds=3"]) != 0
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "rounds=2" in line and "optim.schedule=cosine" in line
    assert (tmp_path / "metrics.csv").read_bytes() == before
    capsys.readouterr()
    assert main(["train", "exp=fedpav_rw", *words, "rounds=3", "optim.scope=round"]) != 0
    assert "optim.scope" in capsys.readouterr().err, "another schedule is another configuration"


@pytest.mark.parametrize("option", ["optim.schedule=step", "optim.scope=round"])
def test_runs_with_schedules_within_a_round_can_be_prolonged(tiny_root: Path, tmp_path: Path, option: str) -> None:
    words = support.quick(tiny_root, tmp_path, "trainer.accelerator=cpu", "optim.schedule=cosine", option)
    words += ["data.datasets=[mini-viper]", "rounds=1"]
    assert main(["train", "exp=fedpav", *words]) == 0
    assert main(["train", "exp=fedpav", *words, "rounds=2"]) == 0
    model = read_state(tmp_path / "checkpoints" / "round-00002.ckpt")["models"]["global"]
    assert all(math.isfinite(float(value.float().sum())) for value in model.values())


def test_a_warm_up_longer_than_a_round_is_refused(
    tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = support.quick(tiny_root, tmp_path / "run", "optim.scope=round", "optim.warmup=3", "local_epochs=2")
    assert main(["train", "exp=fedpav", *words]) != 0
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "optim.warmup=3" in line and "local_epochs=2" in line
    assert not (tmp_path / "run").exists()
