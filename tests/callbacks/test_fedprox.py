"""FedProx's client half in a real Trainer equals SGD by hand, and at mu = 0 FedPav to the bit."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import support
import tiny_turn
import torch

from fedreid_pl.callbacks.fedprox import FedProx
from fedreid_pl.config import compose
from fedreid_pl.errors import FedReIDError
from fedreid_pl.experiment import train
from fedreid_pl.federation.messages import State

MU = 2.0


@pytest.mark.parametrize("precision", ["plain", "scaled", "fused"])
@pytest.mark.parametrize("exchanged", ["all", "without BatchNorm"])
def test_a_turn_equals_sgd_with_the_penalty_by_hand(exchanged: str, precision: str) -> None:
    backbone, batches = tiny_turn.make_backbone(), tiny_turn.make_batches()
    sent = {name: value for name, value in backbone.state_dict().items() if exchanged == "all" or name[0] == "0"}
    job = support.fit_job(1, "a", sent)
    module = tiny_turn.take_turn([FedProx(MU)], job, tiny_turn.MOMENTUM, batches, precision=precision)
    start = {name: value.detach().double() for name, value in backbone.named_parameters()}
    hand, free = (
        tiny_turn.by_hand(
            backbone,
            tiny_turn.MOMENTUM,
            batches,
            lambda name, weight, mu=mu: mu * (weight - start[name]) if name in sent else 0.0,
        )
        for mu in (MU, 0.0)
    )
    for name, value in module.backbone.named_parameters():
        torch.testing.assert_close(value.detach().double(), hand[name], rtol=1e-4, atol=1e-5)
        if name == "0.weight":
            assert not torch.allclose(free[name], hand[name], rtol=1e-2, atol=1e-2), "the penalty has an effect"
    for name, value in sent.items():
        assert torch.equal(value, backbone.state_dict()[name]), "the message does not change"


def train_one_round(tiny_root: Path, folder: Path, *words: str) -> State:
    words = ("trainer.accelerator=cpu", "rounds=1", "batch_size=3", f"data.datasets=[{support.TINY[1]}]", *words)
    return train(compose(support.quick(tiny_root, folder, *words)), folder).context.models["global"]


def test_mu_of_zero_equals_fedpav_to_the_bit(tiny_root: Path, tmp_path: Path) -> None:
    wanted = train_one_round(tiny_root, tmp_path / "fedpav", "exp=fedpav")
    zero = train_one_round(tiny_root, tmp_path / "zero", "exp=fedprox", "callbacks.fedprox.mu=0")
    more = train_one_round(tiny_root, tmp_path / "more", "exp=fedprox", "callbacks.fedprox.mu=10")
    assert list(zero) == list(wanted)
    for name, value in wanted.items():
        assert torch.equal(zero[name], value), name
    assert not torch.equal(more["bottleneck.0.weight"], wanted["bottleneck.0.weight"])


@pytest.mark.parametrize("mu", [-0.1, math.nan, math.inf])
def test_an_invalid_mu_is_refused(mu: float) -> None:
    with pytest.raises(FedReIDError, match=r"^callbacks\.fedprox\.mu=.*at least 0"):
        FedProx(mu)
