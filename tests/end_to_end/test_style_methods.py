"""Methods for unseen domains with BatchNorm policies, all kinds of batches, distance weights, resume, two processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import support
from end_to_end.interrupted import assert_distance_weights, assert_resumes
from end_to_end.test_ddp_equals_one import distance
from end_to_end.two_processes import in_two_processes, reports_of

from fedreid_pl.config import compose
from fedreid_pl.experiment import train
from fedreid_pl.federation.storage import read_state
from fedreid_pl.models.weights import build_backbone

pytestmark = pytest.mark.system

METHODS = {
    "mixstyle": ["callbacks.mixstyle.p=1"],
    "style_bank": ["callbacks.style_bank.least_images=1"],
    "crossstyle": [],
    "dacs": ["callbacks.dacs.first_round=1"],
    "sscu": ["callbacks.sscu.first_round=1", "data.val_ids=0.2"],
    "snr": ["callbacks.snr.weight=1", "model.snr_stages=3"],
}
"""Methods with the settings that make them act on these data."""
OF_A_PART = {exp: [f"callbacks.{exp}.authenticity=0"] for exp in ("dacs", "sscu")}
OF_A_PART["snr"] = ["callbacks.snr.weight=0"]
"""Settings without losses over one process's part of the batch, such as the triplet loss."""
KINDS = {
    "identities, first": ("first", ["data.instances=2", "loss.triplet=1"]),
    "small last batch, recalibrate": ("recalibrate", ["batch_size=6"]),
    "local, distance weights": ("local", ["exp=fedpav_rw"]),
}
"""BatchNorm policy and settings."""


def acting(exp: str) -> list[str]:
    """Returns settings with which a method acts on these data, equally in any number of processes."""
    return [*METHODS[exp], *OF_A_PART.get(exp, [])]


def words(exp: str, kind: str, root: Path, folder: Path) -> list[str]:
    """Returns the settings of a run of two rounds; with distance weights, adds the callback to `fedpav_rw`."""
    policy, more = KINDS[kind]
    joined = [] if any(word.startswith("exp=") for word in more) else [f"exp={exp}"]
    own = METHODS[exp] or [f"callbacks.{exp}={{}}"]
    common = [f"callbacks.backbone_sync.batch_norm={policy}", "evaluate_every=2", "trainer.accelerator=cpu"]
    return support.quick(root, folder, *joined, *more, *common, *own)


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("exp", list(METHODS))
def test_an_interrupted_and_resumed_run_gives_the_same_bits(
    exp: str, kind: str, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(folder: Path) -> Any:
        return train(compose(words(exp, kind, tiny_root, folder)), folder)

    straight = assert_resumes(run, tmp_path, monkeypatch)
    assert exp in straight.callbacks
    if "distance" in kind:
        assert_distance_weights(straight.context.weights)


WORDS = ("rounds=2", "evaluate_every=2", "optim.lr_backbone=0.0001", "optim.lr_head=0.0001", "trainer.accelerator=cpu")


@pytest.fixture(scope="module")
def in_two(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trains every method in two processes, in a folder of its name; includes the report of each process."""
    folder = tmp_path_factory.mktemp("two")
    runs = {
        exp: support.quick(tiny_root, folder / exp, f"exp={exp}", *WORDS, *acting(exp), "trainer.devices=2")
        for exp in METHODS
    }
    in_two_processes(folder, runs)
    return folder


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two processors")
@pytest.mark.parametrize("exp", list(METHODS))
def test_two_processes_train_the_model_of_one(exp: str, in_two: Path, tiny_root: Path, tmp_path: Path) -> None:
    """Models are equal up to rounding, also with partners and styles of the other process; ranks have equal bits."""
    ranks = [report[exp] for report in reports_of(in_two)]
    assert ranks[0]["digest"] == ranks[1]["digest"] and ranks[0]["history"] == ranks[1]["history"]
    config = compose(support.quick(tiny_root, tmp_path / "one", f"exp={exp}", *WORDS, *acting(exp)))
    one = train(config, tmp_path / "one").context.models["global"]
    two = read_state(in_two / exp / "checkpoints" / "round-00002.ckpt")["models"]["global"]
    plain = compose(support.quick(tiny_root, tmp_path / "plain", "exp=fedpav", *WORDS))
    fedpav = train(plain, tmp_path / "plain").context.models["global"]
    start = build_backbone(config.model, config.seed).state_dict()
    way = {kind: distance(start, one, kind) for kind in (False, True)}
    assert distance(two, one, statistics=False) < 0.05 * way[False]
    assert distance(two, one, statistics=True) < 1e-4 * way[True]
    assert distance(fedpav, one, statistics=False) > 0.1 * way[False], "the method has an effect"
