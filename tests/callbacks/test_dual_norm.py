"""Two sets of BatchNorm over one set of weights, compared with two networks by hand that share their weights."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import support
import tiny_turn
import torch
from torch.nn import functional as F

from fedreid_pl.callbacks.dual_norm import DualNorm
from fedreid_pl.config import compose
from fedreid_pl.errors import FedReIDError
from fedreid_pl.experiment import train
from fedreid_pl.federation.storage import read_state

WEIGHT = 0.7
NORM = {f"1.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}


def turn(callback: DualNorm, precision: str = "plain") -> Any:
    job = support.fit_job(2, "a", tiny_turn.make_backbone().state_dict())
    return tiny_turn.take_turn([callback], job, tiny_turn.MOMENTUM, tiny_turn.make_batches(), precision=precision)


def private_set() -> dict[str, torch.Tensor]:
    """Returns the state of an earlier turn."""
    network = tiny_turn.make_backbone(seed=7)
    network(torch.randn(50, 3, generator=torch.Generator().manual_seed(3)))
    return {name: value for name, value in network.state_dict().items() if name in NORM}


def both_by_hand() -> tuple[dict[str, Any], dict[str, Any]]:
    """Trains two networks that share one linear layer and one head, in one loop of SGD in float64."""
    optim, first, head = tiny_turn.MOMENTUM, tiny_turn.make_backbone().double(), tiny_turn.make_head().double()
    second = copy.deepcopy(first)
    second.load_state_dict({**first.state_dict(), **private_set()})
    second[0] = first[0]  # shared layer
    networks = torch.nn.ModuleList([first, second])
    weights = [(value, optim.lr_backbone) for value in networks.parameters()]
    weights += [(value, optim.lr_head) for value in head.parameters()]
    speeds = [torch.zeros_like(value) for value, _ in weights]
    for epoch in range(tiny_turn.EPOCHS):
        for images, labels, *_ in tiny_turn.make_batches():
            losses = [F.cross_entropy(head(network(images.double())), labels) for network in networks]
            gradients = torch.autograd.grad(losses[0] + WEIGHT * losses[1], [value for value, _ in weights])
            with torch.no_grad():
                for (value, rate), speed, gradient in zip(weights, speeds, gradients, strict=True):
                    speed.mul_(optim.momentum).add_(gradient + optim.weight_decay * value)
                    value.sub_(speed * rate * optim.gamma**epoch)
    return first.state_dict(), {name: value for name, value in second.state_dict().items() if name in NORM}


@pytest.mark.parametrize("precision", ["plain", "scaled", "fused"])
def test_both_sets_and_the_shared_weights_equal_sgd_by_hand(precision: str) -> None:
    callback = DualNorm(WEIGHT)
    callback.load_client_state_dict({"private": private_set()})
    module = turn(callback, precision)
    shared, private = both_by_hand()
    kept = callback.client_state_dict()["private"]
    assert set(kept) == NORM
    for found, wanted in ((module.backbone.state_dict(), shared), (kept, private)):
        for name, value in found.items():
            torch.testing.assert_close(value.double(), wanted[name].double(), rtol=1e-4, atol=1e-5, msg=name)
    assert int(kept["1.num_batches_tracked"]) == 1 + tiny_turn.EPOCHS * 3, (
        "one batch before this turn, and all batches of this turn"
    )
    assert module.outbox.metrics["cost/cloned_bytes"] == sum(value.nbytes for value in kept.values())


def test_a_weight_of_zero_equals_fedpav_to_the_bit_and_saves_no_state() -> None:
    alone = tiny_turn.take_turn([], support.fit_job(1, "a", {}), tiny_turn.MOMENTUM, tiny_turn.make_batches())
    callback = DualNorm(0.0)
    module = turn(callback)
    support.assert_equal(dict(module.state_dict()), dict(alone.state_dict()))
    assert callback.client_state_dict() == {}


def test_the_clients_evaluation_uses_the_private_set() -> None:
    callback = DualNorm()
    callback.load_client_state_dict({"private": private_set()})
    module: Any = turn(callback)
    exchanged = {name: value.clone() for name, value in module.backbone.state_dict().items()}
    private = callback.client_state_dict()["private"]
    callback.on_test_start(None, module)  # type: ignore[arg-type]
    for name, value in module.backbone.state_dict().items():
        assert torch.equal(value, private[name] if name in NORM else exchanged[name]), name
    callback.on_test_end(None, module)  # type: ignore[arg-type]
    support.assert_equal(dict(module.backbone.state_dict()), exchanged)
    assert not torch.equal(private["1.weight"], exchanged["1.weight"])
    DualNorm().on_test_start(None, module)  # type: ignore[arg-type]
    support.assert_equal(dict(module.backbone.state_dict()), exchanged)  # a turn that only evaluates


def test_rounds_of_the_experiment(tiny_root: Path, tmp_path: Path) -> None:
    """The private set stays at the client; messages have FedPav's size, and at weight 0 FedPav's bits."""

    def run(exp: str, *words: str) -> Any:
        words = (*words, "trainer.accelerator=cpu", f"data.datasets=[{','.join(support.TINY[1:])}]")
        folder = tmp_path / "-".join((exp, *words[:-2]))
        return train(compose([f"exp={exp}", *support.quick(tiny_root, folder, *words)]), folder), folder

    fedpav, _ = run("fedpav")
    zero, _ = run("dual_norm", "callbacks.dual_norm.weight=0")
    dual, folder = run("dual_norm")
    support.assert_equal(zero.context.models, fedpav.context.models)
    assert dual.context.costs.bytes_up == fedpav.context.costs.bytes_up
    model = dual.context.models["global"]
    paths = sorted((folder / "clients").rglob("round-00002.pt"))
    sets = [read_state(path)["callbacks"]["dual_norm"]["private"] for path in paths]
    norms = {name for name in model if f"{name.rpartition('.')[0]}.running_mean" in model}
    assert len(sets) == 2 and all(set(private) == norms for private in sets)
    mean = "trunk.stem.1.running_mean"
    assert len({tuple(state[mean].tolist()) for state in (*sets, model)}) == 3, (
        "every client has different statistics, and the model has their average"
    )
    assert not torch.equal(model["trunk.stem.0.weight"], fedpav.context.models["global"]["trunk.stem.0.weight"])


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["callbacks.backbone_sync.batch_norm=local"], "callbacks.backbone_sync.batch_norm=local: callbacks.dual_norm"),
        (["trainer.compile=default"], "trainer.compile=default: callbacks.dual_norm cannot run"),
    ],
)
def test_incompatible_settings_are_refused(words: list[str], wanted: str) -> None:
    with pytest.raises(FedReIDError) as caught:
        DualNorm().check(compose(["exp=dual_norm", *words]), SimpleNamespace())  # type: ignore[arg-type]
    assert str(caught.value).startswith(wanted)


@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf])
def test_an_invalid_weight_is_refused(weight: float) -> None:
    with pytest.raises(FedReIDError, match=r"^callbacks\.dual_norm\.weight=.*at least 0"):
        DualNorm(weight)
