"""MOON's client half in a real Trainer equals SGD by hand, and at mu = 0 FedPav to the bit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import support
import tiny_turn
import torch
from torch import Tensor
from torch.nn import functional as F

from fedreid_pl.callbacks.moon import Moon
from fedreid_pl.config import compose
from fedreid_pl.errors import FedReIDError
from fedreid_pl.experiment import train

MU, TAU = 3.0, 0.4


def turn(moon: Moon, precision: str = "plain") -> Any:
    sent = tiny_turn.make_backbone().state_dict()
    job = support.fit_job(2, "a", sent)
    return tiny_turn.take_turn([moon], job, tiny_turn.MOMENTUM, tiny_turn.make_batches(), precision=precision)


@pytest.mark.parametrize("precision", ["plain", "scaled", "fused"])
def test_a_turn_equals_sgd_with_the_term_by_hand(precision: str) -> None:
    backbone, batches = tiny_turn.make_backbone(), tiny_turn.make_batches()
    previous = tiny_turn.make_backbone(seed=7)
    previous(torch.randn(50, 3, generator=torch.Generator().manual_seed(3)))  # different statistics
    moon = Moon(MU, TAU)
    moon.load_client_state_dict({"previous": previous.state_dict()})
    module = turn(moon, precision)
    received, last = (network.double().eval() for network in (tiny_turn.make_backbone(), previous))

    def term(features: Tensor, logits: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        near, far = (F.normalize(network(images).detach()) for network in (received, last))
        own = F.normalize(features)
        scores = torch.stack([(own * near).sum(1), (own * far).sum(1)], dim=1) / TAU
        return MU * F.cross_entropy(scores, torch.zeros(len(images), dtype=torch.int64))

    hand = tiny_turn.by_hand(backbone, tiny_turn.MOMENTUM, batches, term=term)
    free = tiny_turn.by_hand(backbone, tiny_turn.MOMENTUM, batches)
    for name, value in module.backbone.named_parameters():
        torch.testing.assert_close(value.detach().double(), hand[name], rtol=1e-4, atol=1e-5, msg=name)
    assert not torch.allclose(free["0.weight"], hand["0.weight"], rtol=1e-2, atol=1e-2), "the term has an effect"
    kept = moon.client_state_dict()["previous"]
    support.assert_equal(kept, dict(module.backbone.state_dict()))


def test_the_term_is_added_from_the_second_turn() -> None:
    first, alone = Moon(MU), turn(Moon(0.0))
    module = turn(first)
    assert module.outbox.metrics["train/Moon"] == 0.0
    support.assert_equal(dict(module.backbone.state_dict()), dict(alone.backbone.state_dict()))
    second = Moon(MU)
    second.load_client_state_dict(first.client_state_dict())
    again = turn(second)
    assert again.outbox.metrics["train/Moon"] > 0
    assert not torch.equal(again.backbone[0].weight, alone.backbone[0].weight)


def test_mu_of_zero_equals_fedpav_to_the_bit(tiny_root: Path, tmp_path: Path) -> None:
    """Uses two rounds, so that a previous model exists; messages have FedPav's size."""

    def run(exp: str, *words: str) -> Any:
        words = ("trainer.accelerator=cpu", "batch_size=3", f"data.datasets=[{support.TINY[1]}]", *words)
        folder = tmp_path / exp.replace("=", "-") / "-".join(words[3:])
        return train(compose([f"exp={exp}", *support.quick(tiny_root, folder, *words)]), folder)

    fedpav, zero, more = run("fedpav"), run("moon", "callbacks.moon.mu=0"), run("moon", "callbacks.moon.mu=5")
    support.assert_equal(zero.context.models, fedpav.context.models)
    assert not torch.equal(
        more.context.models["global"]["bottleneck.0.weight"], fedpav.context.models["global"]["bottleneck.0.weight"]
    )
    assert more.context.costs.bytes_up == fedpav.context.costs.bytes_up


@pytest.mark.parametrize("mu", [-0.1, math.nan, math.inf])
def test_an_invalid_mu_is_refused(mu: float) -> None:
    with pytest.raises(FedReIDError, match=r"^callbacks\.moon\.mu=.*at least 0"):
        Moon(mu)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_an_invalid_temperature_is_refused(temperature: float) -> None:
    with pytest.raises(FedReIDError, match=r"^callbacks\.moon\.temperature=.*above 0"):
        Moon(temperature=temperature)
