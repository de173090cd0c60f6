"""`local_steps` sets the exact number of optimizer steps of a turn, whatever the client's number of images."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import support

from fedreid_pl.cli import main
from fedreid_pl.federation.storage import read_state
from fedreid_pl.functional.local_steps import effective_steps

STEPS = 7
"""Less than one pass over the largest client's data, more than two over the smallest client's."""


def train(root: Path, folder: Path, exp: str, *words: str) -> list[dict[str, str]]:
    options = ("trainer.accelerator=cpu", f"local_steps={STEPS}", *words)
    assert main(["train", f"exp={exp}", *support.quick(root, folder), *options]) == 0
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("words", [[], ["data.instances=2"], ["optim.nesterov=true", "loss.triplet=1"]])
def test_fednova_counts_the_steps_of_every_client(words: list[str], tiny_root: Path, tmp_path: Path) -> None:
    instances = ["data.instances=2"] if "loss.triplet=1" in words else []
    rows = train(tiny_root, tmp_path, "fednova", *words, *instances)
    counts = {row["name"]: float(row["value"]) for row in rows if row["metric"] == "effective_steps"}
    wanted = effective_steps([0.02] * STEPS, 0.9, nesterov="optim.nesterov=true" in words)
    assert counts == {name: pytest.approx(wanted) for name in support.TINY}


def test_a_resume_is_bit_identical(tiny_root: Path, tmp_path: Path) -> None:
    for exp in ("fedpav", "scaffold", "local"):
        train(tiny_root, tmp_path / exp / "whole", exp)
        train(tiny_root, tmp_path / exp / "parts", exp, "rounds=1")
        train(tiny_root, tmp_path / exp / "parts", exp)
        whole, parts = (
            [read_state(path) for path in sorted((tmp_path / exp / kind / "clients").glob("*/round-00002.pt"))]
            for kind in ("whole", "parts")
        )
        assert len(whole) == len(parts) == len(support.TINY)
        for one, two in zip(whole, parts, strict=True):
            support.assert_equal(one["head"], two["head"])


def test_one_pass_of_steps_is_an_epoch(tiny_root: Path, tmp_path: Path) -> None:
    """With as many steps as a pass has batches, the bits are those of `local_epochs=1`."""
    words = support.quick(tiny_root, tmp_path, "trainer.accelerator=cpu", "data.datasets=[mini-viper]")
    images = len(list((tiny_root / "mini-viper" / "bounding_box_train").iterdir()))
    full, rest = divmod(images, 8)
    steps = full + (rest > 1)
    for name, word in (("epoch", "local_epochs=1"), ("steps", f"local_steps={steps}")):
        assert main(["train", "exp=fedpav", *words, word, f"output_dir={tmp_path / name}"]) == 0
    one, two = (read_state(tmp_path / name / "checkpoints" / "round-00002.ckpt") for name in ("epoch", "steps"))
    support.assert_equal(one["models"], two["models"])


def test_epochs_and_steps_together_are_refused(tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = support.quick(tiny_root, tmp_path / "run", "local_epochs=2", "local_steps=3")
    assert main(["train", "exp=fedpav", *words]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: local_steps=3: conflicts with local_epochs=2") and "\n" not in said
