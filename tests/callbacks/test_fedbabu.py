"""FedBABU's client half in a real Trainer: a fixed head, and a fine-tuned copy compared with SGD by hand."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import support
import tiny_turn
import torch

from fedreid_pl.callbacks.fedbabu import FedBabu
from fedreid_pl.config import compose
from fedreid_pl.errors import FedReIDError
from fedreid_pl.experiment import train
from fedreid_pl.federation.storage import read_state

FROZEN = replace(tiny_turn.MOMENTUM, lr_head=0.0)
SCORED = {"evaluate": True}


def turn(callback: FedBabu, config: Any = None, precision: str = "plain") -> Any:
    job = support.fit_job(2, "a", tiny_turn.make_backbone().state_dict(), config)
    return tiny_turn.take_turn([callback], job, tiny_turn.MOMENTUM, tiny_turn.make_batches(), precision=precision)


@pytest.mark.parametrize("precision", ["plain", "scaled", "fused"])
def test_the_body_is_trained_and_the_head_is_fixed(precision: str) -> None:
    """The turn equals SGD by hand with a learning rate of zero for the head."""
    module = turn(FedBabu("none", head_std=None), SCORED, precision)
    hand = tiny_turn.by_hand(tiny_turn.make_backbone(), FROZEN, tiny_turn.make_batches())
    for name, value in module.backbone.named_parameters():
        torch.testing.assert_close(value.detach().double(), hand[name], rtol=1e-4, atol=1e-5, msg=name)
    support.assert_equal(dict(module.head.state_dict()), dict(tiny_turn.make_head().state_dict()))
    assert not len(module.clones)


def test_it_equals_fedpav_with_a_head_rate_of_zero_to_the_bit() -> None:
    job = support.fit_job(2, "a", tiny_turn.make_backbone().state_dict())
    wanted = tiny_turn.take_turn([], job, FROZEN, tiny_turn.make_batches())
    for config in (None, SCORED):
        module = turn(FedBabu(head_std=None), config)
        support.assert_equal(dict(module.backbone.state_dict()), dict(wanted.backbone.state_dict()))
        support.assert_equal(dict(module.head.state_dict()), dict(wanted.head.state_dict()))


def test_the_copy_is_the_received_model_trained_with_its_head() -> None:
    callback = FedBabu(head_std=None)
    module: Any = turn(callback, SCORED)
    hand = tiny_turn.by_hand(tiny_turn.make_backbone(), tiny_turn.MOMENTUM, tiny_turn.make_batches())
    federated = {name: value.clone() for name, value in module.backbone.state_dict().items()}
    callback.on_test_start(None, module)  # type: ignore[arg-type]
    for name, value in module.backbone.state_dict().items():
        torch.testing.assert_close(value.double(), hand[name].double(), rtol=1e-4, atol=1e-5, msg=name)
    callback.on_test_end(None, module)  # type: ignore[arg-type]
    support.assert_equal(dict(module.backbone.state_dict()), federated)
    assert not torch.allclose(federated["0.weight"].double(), hand["0.weight"], rtol=1e-3, atol=1e-3)


def test_a_turn_without_an_evaluation_has_no_copy_and_no_additional_loss() -> None:
    module = turn(FedBabu())
    assert not len(module.clones) and module.outbox.metrics["train/FedBabu"] == 0.0
    assert turn(FedBabu(), SCORED).outbox.metrics["train/FedBabu"] > 0


def test_the_head_is_scaled_once() -> None:
    drawn = tiny_turn.make_head().weight.detach()
    first = FedBabu("none", head_std=0.1)
    module = turn(first)
    assert float(module.head.weight.std()) == pytest.approx(0.1, rel=1e-5)
    directions = [value / value.norm() for value in (module.head.weight.detach(), drawn)]
    torch.testing.assert_close(*directions)
    second = FedBabu("none", head_std=0.1)
    second.load_client_state_dict(copy.deepcopy(first.client_state_dict()))
    support.assert_equal(dict(turn(second).head.state_dict()), dict(tiny_turn.make_head().state_dict()))


def test_rounds_of_the_experiment(tiny_root: Path, tmp_path: Path) -> None:
    """Heads do not change between rounds, messages have FedPav's size, and fine-tuning affects only local scores."""

    def run(name: str, *words: str) -> Any:
        words = (*words, "trainer.accelerator=cpu", f"data.datasets=[{support.TINY[1]}]")
        return train(compose(support.quick(tiny_root, tmp_path / name, *words)), tmp_path / name)

    fedpav, tuned = run("fedpav", "exp=fedpav"), run("tuned", "exp=fedbabu")
    plain = run("plain", "exp=fedbabu", "callbacks.fedbabu.fine_tune=none", "rounds=3")
    short = run("short", "exp=fedbabu", "callbacks.fedbabu.fine_tune=none")
    support.assert_equal(tuned.context.models, short.context.models)
    assert tuned.context.history.state_dict() != short.context.history.state_dict()
    assert tuned.context.costs.bytes_up == fedpav.context.costs.bytes_up
    files = [sorted((tmp_path / name).glob("clients/*/*.pt"))[-1] for name in ("tuned", "plain")]
    assert [path.name for path in files] == ["round-00002.pt", "round-00003.pt"]
    heads = [read_state(path)["head"] for path in files]
    assert float(heads[0]["weight"].std()) == pytest.approx(0.025, rel=1e-4)
    support.assert_equal(*heads)
    assert plain.context.round == 3
    name = "bottleneck.0.weight"
    assert not torch.equal(tuned.context.models["global"][name], fedpav.context.models["global"][name])


def test_a_kept_optimizer_state_is_refused_with_fine_tuning() -> None:
    data: Any = None
    with pytest.raises(FedReIDError, match=r"^optimizer_state=keep: callbacks\.fedbabu .*fine_tune=none$"):
        FedBabu().check(compose(["exp=fedbabu", "optimizer_state=keep"]), data)
    FedBabu().check(compose(["exp=fedbabu", "optimizer_state=keep", "optim.momentum=0"]), data)
    FedBabu("none").check(compose(["exp=fedbabu", "optimizer_state=keep"]), data)
    FedBabu().check(compose(["exp=fedbabu"]), data)


@pytest.mark.parametrize("head_std", [0.0, -1.0, math.nan, math.inf])
def test_an_invalid_scale_is_refused(head_std: float) -> None:
    with pytest.raises(FedReIDError, match=r"^callbacks\.fedbabu\.head_std=.*above 0, or null"):
        FedBabu(head_std=head_std)
