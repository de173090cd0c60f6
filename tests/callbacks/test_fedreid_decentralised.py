"""Decentralised FedReID's client half in a real Trainer, compared with both models by hand and with FedPav."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import support
import tiny_turn
import torch
from torch import Tensor
from torch.nn import functional as F

from fedreid_pl.callbacks.fedreid_decentralised import FedReIDDecentralised
from fedreid_pl.config import compose
from fedreid_pl.errors import FedReIDError
from fedreid_pl.experiment import train
from fedreid_pl.federation.storage import read_state

ALPHA, T, WEIGHT = 0.3, 2.0, 1.5


def turn(callback: FedReIDDecentralised, precision: str = "plain", seed: int = 0) -> Any:
    job = support.fit_job(2, "a", tiny_turn.make_backbone().state_dict())
    batches = tiny_turn.make_batches()
    return tiny_turn.take_turn([callback], job, tiny_turn.MOMENTUM, batches, precision=precision, seed=seed)


def kept_expert() -> dict[str, Any]:
    """Returns the expert of an earlier turn, with different statistics and a separate head."""
    backbone, head = tiny_turn.make_backbone(seed=7), tiny_turn.make_head()
    backbone(torch.randn(50, 3, generator=torch.Generator().manual_seed(3)))
    with torch.no_grad():
        head.weight.mul_(-0.5)
    return {"backbone": backbone.state_dict(), "head": head.state_dict()}


def both_by_hand() -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Returns g, the expert and the expert's head after a turn, from one loop of SGD in float64 over both models."""
    optim, batches, kept = tiny_turn.MOMENTUM, tiny_turn.make_batches(), kept_expert()
    model, head = tiny_turn.make_backbone().double(), tiny_turn.make_head().double()
    expert, expert_head = copy.deepcopy(model), copy.deepcopy(head)
    mixed = {}
    for name, value in model.state_dict().items():
        old = kept["backbone"][name]
        mixed[name] = value if name.endswith("tracked") else 0.7 * value + 0.3 * old.double()
    expert.load_state_dict(mixed), expert_head.load_state_dict(kept["head"])
    weights = [(value, optim.lr_backbone) for network in (model, expert) for value in network.parameters()]
    weights += [(value, optim.lr_head) for network in (head, expert_head) for value in network.parameters()]
    speeds = [torch.zeros_like(value) for value, _ in weights]
    for epoch in range(tiny_turn.EPOCHS):
        for images, labels, *_ in batches:
            own, theirs = head(model(images.double())), expert_head(expert(images.double()))
            p, q = (theirs / T).softmax(1).detach(), (own / T).softmax(1)
            divergence = (p * (p.log() - q.log())).sum(1).mean()
            loss = F.cross_entropy(own, labels) + F.cross_entropy(theirs, labels) + WEIGHT * T * T * divergence
            gradients = torch.autograd.grad(loss, [value for value, _ in weights])
            with torch.no_grad():
                for (value, rate), speed, gradient in zip(weights, speeds, gradients, strict=True):
                    speed.mul_(optim.momentum).add_(gradient + optim.weight_decay * value)
                    value.sub_(speed * rate * optim.gamma**epoch)
    return model.state_dict(), expert.state_dict(), expert_head.state_dict()


@pytest.mark.parametrize("precision", ["plain", "scaled", "fused"])
def test_both_models_equal_sgd_by_hand(precision: str) -> None:
    callback = FedReIDDecentralised(ALPHA, T, WEIGHT)
    callback.load_client_state_dict(kept_expert())
    module = turn(callback, precision=precision)
    kept = callback.client_state_dict()
    for found, wanted in zip(
        (module.backbone.state_dict(), kept["backbone"], kept["head"]), both_by_hand(), strict=True
    ):
        for name, value in found.items():
            torch.testing.assert_close(value.double(), wanted[name].double(), rtol=1e-4, atol=1e-5, msg=name)
    alone = turn(FedReIDDecentralised(weight=0.0))
    assert not torch.allclose(module.backbone[0].weight, alone.backbone[0].weight, rtol=1e-3), (
        "the expert has an effect"
    )


def test_without_the_divergence_the_federated_model_does_not_depend_on_the_expert() -> None:
    batches = tiny_turn.make_batches()
    alone = tiny_turn.take_turn([], support.fit_job(1, "a", {}), tiny_turn.MOMENTUM, batches)
    callback = FedReIDDecentralised(weight=0.0, noise=0.2)
    callback.load_client_state_dict(kept_expert())
    module = turn(callback)
    for name, value in alone.state_dict().items():
        assert torch.equal(value, module.state_dict()[name]), name


def test_the_first_expert_starts_as_the_received_model_and_trains_equally() -> None:
    """With equal initial weights and heads both models take equal steps, and the divergence stays zero."""
    callback = FedReIDDecentralised()
    module = turn(callback)
    for name, value in callback.client_state_dict()["backbone"].items():
        torch.testing.assert_close(value, module.backbone.state_dict()[name], rtol=1e-5, atol=1e-6)


def test_the_turns_seed_determines_the_noise() -> None:
    found = []
    for seed in (1, 1, 2):
        callback = FedReIDDecentralised(noise=0.2)
        callback.load_client_state_dict(kept_expert())
        turn(callback, seed=seed)
        found.append(callback.client_state_dict())
    support.assert_equal(found[0], found[1])
    assert not torch.equal(found[0]["backbone"]["0.weight"], found[2]["backbone"]["0.weight"])


def test_rounds_of_the_experiment(tiny_root: Path, tmp_path: Path) -> None:
    """Clients have equal weights, experts stay at their clients, and the local scores are those of the experts."""

    def run(exp: str, *words: str) -> Any:
        words = (*words, "trainer.accelerator=cpu", f"data.datasets=[{','.join(support.TINY[1:])}]")
        folder = tmp_path / "-".join((exp, *words[:-2]))
        return train(compose([f"exp={exp}", *support.quick(tiny_root, folder, *words)]), folder), folder

    equal, _ = run("fedpav_equal")
    alone, _ = run("fedreid_decentralised", "callbacks.fedreid_decentralised.weight=0")
    taught, folder = run("fedreid_decentralised")
    support.assert_equal(alone.context.models, equal.context.models)
    assert alone.context.history.state_dict() != equal.context.history.state_dict(), "the experts' scores"
    name = "bottleneck.0.weight"
    assert not torch.equal(taught.context.models["global"][name], equal.context.models["global"][name])
    assert set(taught.context.weights.values()) == {0.5}
    assert taught.context.costs.bytes_up == equal.context.costs.bytes_up, "messages are FedPav's"
    for kept in (folder / "clients").rglob("round-00002.pt"):
        expert = read_state(kept)["callbacks"]["fedreid_decentralised"]
        assert not torch.equal(expert["backbone"][name], taught.context.models["global"][name])


@pytest.mark.parametrize(
    ("options", "key"),
    [({"alpha": -0.1}, "alpha"), ({"alpha": 1.1}, "alpha"), ({"alpha": math.nan}, "alpha")]
    + [({key: value}, key) for key in ("weight", "noise") for value in (-1.0, math.nan, math.inf)]
    + [({"temperature": value}, "temperature") for value in (0.0, -1.0, math.nan, math.inf)],
)
def test_invalid_options_are_refused(options: dict[str, float], key: str) -> None:
    with pytest.raises(FedReIDError, match=rf"^callbacks\.fedreid_decentralised\.{key}=.*must be"):
        FedReIDDecentralised(**options)
