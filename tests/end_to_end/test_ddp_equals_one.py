"""Two processes train the same model as one, up to rounding: the number of devices is not a hyperparameter."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import support
from torch import Tensor

from fedreid_pl.config import compose
from fedreid_pl.federation.storage import read_state
from fedreid_pl.models.weights import build_backbone

pytestmark = [pytest.mark.system, pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two processors")]

# All random operations are on. The learning rates are small, because with larger ones rounding errors grow with each
# of the round's two dozen steps, in one process as well.
WORDS = (
    *("exp=fedpav", "rounds=1", "optim.lr_backbone=0.0001", "optim.lr_head=0.0001"),
    *("data.jitter=0.2", "data.erasing=0.5", "model.dropout=0.5", "trainer.accelerator=cpu"),
)

State = dict[str, Tensor]


def distance(one: State, other: State, statistics: bool) -> float:
    """Returns the Euclidean distance between all running statistics or all weights of two models.

    Excludes the bias before the bottleneck's BatchNorm: BatchNorm cancels it, and its gradient is only rounding error.
    """
    names = [name for name in one if ("running" in name) == statistics and one[name].is_floating_point()]
    return sum(float((one[name] - other[name]).square().sum()) for name in names if name != "bottleneck.0.bias") ** 0.5


def losses_of(metrics: Path) -> dict[str, float]:
    """Reads every client's training loss from metrics.csv; every process computes small last batches completely."""
    rows = [line.split(",") for line in metrics.read_text().splitlines()]
    return {name: float(value) for _, section, name, metric, value in rows if (section, metric) == ("train", "loss")}


@pytest.mark.parametrize("words", [(), ("data.instances=2",)], ids=["shuffled", "identities"])
def test_one_and_two_processes_train_one_model(words: tuple[str, ...], tiny_root: Path, tmp_path: Path) -> None:
    def trained(folder: str, *more: str) -> State:
        options = support.quick(tiny_root, tmp_path / folder, *WORDS, *words, *more)
        done = support.run_cli("train", *options, OMP_NUM_THREADS="1")
        assert done.returncode == 0, done.stderr
        return read_state(tmp_path / folder / "checkpoints" / "round-00001.ckpt")["models"]["global"]

    config = compose(support.quick(tiny_root, tmp_path, *WORDS))
    start = build_backbone(config.model, config.seed).state_dict()
    one, two = trained("one"), trained("two", "trainer.devices=2")
    apart = trained("apart", "trainer.devices=2", "trainer.sync_batchnorm=false")
    weights, statistics = (distance(start, one, kind) for kind in (False, True))  # the distance covered by training
    assert distance(two, one, statistics=False) < 0.05 * weights
    assert distance(two, one, statistics=True) < 1e-5 * statistics
    assert distance(apart, one, statistics=False) > 0.5 * weights, "the distance detects ghost batches"
    assert distance(apart, one, statistics=True) > 0.01 * statistics
    losses = [losses_of(tmp_path / folder / "metrics.csv") for folder in ("one", "two")]
    assert len(losses[0]) == len(support.TINY) and losses[1] == pytest.approx(losses[0], rel=5e-5)
    counts = [int(model["trunk.stem.1.num_batches_tracked"]) for model in (one, two)]
    assert counts[0] == counts[1] > 5
