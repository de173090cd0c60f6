"""Personalised methods with BatchNorm policies, all kinds of batches, distance weights, resume and two processes."""

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

METHODS = ("moon", "fedper", "lg_fedavg", "fedbabu", "fedreid_decentralised", "dual_norm")
KINDS = {
    "identities, first": ["data.instances=2", "loss.triplet=1", "callbacks.backbone_sync.batch_norm=first"],
    "small last batch, recalibrate": ["batch_size=6", "callbacks.backbone_sync.batch_norm=recalibrate"],
    "local, distance weights": ["callbacks.backbone_sync.batch_norm=local", "callbacks.reweighting.by=cosine_distance"],
}


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("exp", METHODS)
def test_an_interrupted_and_resumed_run_gives_the_same_bits(
    exp: str, kind: str, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = list(KINDS[kind])
    if exp == "dual_norm" and "local" in kind:
        more = more[1:]  # refused, see tests/callbacks/test_dual_norm.py

    def run(folder: Path) -> Any:
        words = support.quick(tiny_root, folder, f"exp={exp}", *more, "evaluate_every=2", "trainer.accelerator=cpu")
        return train(compose(words), folder)

    straight = assert_resumes(run, tmp_path, monkeypatch)
    if "distance" in kind:
        assert_distance_weights(straight.context.weights)


WORDS = ("rounds=2", "evaluate_every=2", "optim.lr_backbone=0.0001", "optim.lr_head=0.0001", "trainer.accelerator=cpu")
STRONG = {
    "moon": ["callbacks.moon.mu=10"],
    "fedreid_decentralised": ["callbacks.fedreid_decentralised.noise=0.01"],
}
"""Settings with which the method's effect exceeds rounding, and with random draws."""


@pytest.fixture(scope="module")
def in_two(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trains every method in two processes, in a folder of its name; includes the report of each process."""
    folder = tmp_path_factory.mktemp("two")
    runs = {
        exp: support.quick(tiny_root, folder / exp, f"exp={exp}", *WORDS, *STRONG.get(exp, []), "trainer.devices=2")
        for exp in METHODS
    }
    in_two_processes(folder, runs)
    return folder


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two processors")
@pytest.mark.parametrize("exp", METHODS)
def test_two_processes_train_the_models_of_one(exp: str, in_two: Path, tiny_root: Path, tmp_path: Path) -> None:
    """The federated model and all client states are equal up to rounding; the two processes have equal bits."""
    ranks = [report[exp] for report in reports_of(in_two)]
    assert ranks[0]["digest"] == ranks[1]["digest"] and ranks[0]["history"] == ranks[1]["history"]
    config = compose(support.quick(tiny_root, tmp_path, f"exp={exp}", *WORDS, *STRONG.get(exp, [])))
    one = train(config, tmp_path).context.models["global"]
    two = read_state(in_two / exp / "checkpoints" / "round-00002.ckpt")["models"]["global"]
    start = build_backbone(config.model, config.seed).state_dict()
    way = {kind: distance(start, one, kind) for kind in (False, True)}
    assert distance(two, one, statistics=False) < 0.05 * way[False]
    assert distance(two, one, statistics=True) < 1e-4 * way[True]
    own = "backbone_sync" if exp in ("fedper", "lg_fedavg") else exp
    compared = 0
    for path in sorted(tmp_path.rglob("clients/*/round-00002.pt")):
        mine, theirs = (
            read_state(place)["callbacks"][own] for place in (path, in_two / exp / path.relative_to(tmp_path))
        )
        assert mine.keys() == theirs.keys()
        for part, state in mine.items():
            if part in ("own", "previous", "backbone", "private"):
                moved = distance({name: start[name] for name in state}, state, statistics=False)
                assert 0 < distance(theirs[part], state, statistics=False) < 0.05 * moved
                compared += 1
    assert compared == (0 if exp == "fedbabu" else 3), "FedBABU saves no backbone at the client"
