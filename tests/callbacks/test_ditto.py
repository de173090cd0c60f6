"""Ditto's client half in a real Trainer, compared with SGD by hand; the federated model equals FedPav's to the bit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import support
import tiny_turn
import torch

from fedreid_pl.callbacks.ditto import Ditto
from fedreid_pl.config import compose
from fedreid_pl.errors import FedReIDError
from fedreid_pl.experiment import train

LAM = 2.0


def turn(ditto: Ditto, sent: dict[str, Any] | None = None, precision: str = "plain") -> Any:
    sent = tiny_turn.make_backbone().state_dict() if sent is None else sent
    batches = tiny_turn.make_batches()
    return tiny_turn.take_turn([ditto], support.fit_job(1, "a", sent), tiny_turn.MOMENTUM, batches, precision=precision)


@pytest.mark.parametrize("precision", ["plain", "scaled", "fused"])
def test_the_personal_model_equals_sgd_with_the_penalty_by_hand(precision: str) -> None:
    """The penalty excludes the head and entries that are not exchanged."""
    backbone, batches = tiny_turn.make_backbone(), tiny_turn.make_batches()
    sent = {name: value for name, value in backbone.state_dict().items() if name[0] == "0"}
    ditto = Ditto(LAM)
    turn(ditto, sent, precision)
    start = {name: value.detach().double() for name, value in backbone.named_parameters()}
    wanted = tiny_turn.by_hand(
        *(backbone, tiny_turn.MOMENTUM, batches),
        lambda name, weight: LAM * (weight - start[name]) if name in sent else 0.0,
    )
    free = tiny_turn.by_hand(backbone, tiny_turn.MOMENTUM, batches)
    found = ditto.client_state_dict()["backbone"]
    for name, value in found.items():
        torch.testing.assert_close(value.double(), wanted[name].double(), rtol=1e-4, atol=1e-5, msg=name)
    assert not torch.allclose(found["0.weight"].double(), free["0.weight"], rtol=1e-2, atol=1e-2), (
        "the penalty has an effect"
    )


def test_the_federated_model_does_not_depend_on_the_personal_one() -> None:
    batches = tiny_turn.make_batches()
    alone = tiny_turn.take_turn([], support.fit_job(1, "a", {}), tiny_turn.MOMENTUM, batches)
    module = turn(Ditto(LAM))
    for name, value in module.state_dict().items():
        if not name.startswith("clones"):
            assert torch.equal(value, alone.state_dict()[name]), name
    total, personal = module.outbox.metrics["train/loss"], module.outbox.metrics["train/Ditto"]
    assert total == pytest.approx(alone.outbox.metrics["train/loss"] + personal, rel=1e-5)


def test_the_clients_evaluation_uses_the_personal_model_and_restores_the_federated_one() -> None:
    ditto = Ditto(LAM)
    module: Any = turn(ditto)
    federated = {name: value.clone() for name, value in module.backbone.state_dict().items()}
    personal = ditto.client_state_dict()["backbone"]
    ditto.on_test_start(None, module)  # type: ignore[arg-type]
    support.assert_equal(dict(module.backbone.state_dict()), personal)
    ditto.on_test_end(None, module)  # type: ignore[arg-type]
    support.assert_equal(dict(module.backbone.state_dict()), federated)
    assert not torch.equal(federated["0.weight"], personal["0.weight"])
    Ditto(LAM).on_test_start(None, module)  # type: ignore[arg-type]
    support.assert_equal(dict(module.backbone.state_dict()), federated)  # a turn that only evaluates


def test_the_next_turn_continues_from_the_personal_model_towards_the_sent_model() -> None:
    first, second, alone = Ditto(LAM), Ditto(LAM), Ditto(0.0)
    turn(first)
    kept = first.client_state_dict()
    later = {name: value + 1 if value.is_floating_point() else value for name, value in kept["backbone"].items()}
    for ditto in (second, alone):
        ditto.load_client_state_dict(kept)
        turn(ditto, later)
    towards = second.client_state_dict()["backbone"]["0.weight"] - alone.client_state_dict()["backbone"]["0.weight"]
    assert (towards > 0).all(), "every weight of the sent model is larger by one"
    again = Ditto(LAM)
    again.load_client_state_dict(kept)
    turn(again, later)
    support.assert_equal(again.client_state_dict(), second.client_state_dict())


def test_rounds_of_the_experiment(tiny_root: Path, tmp_path: Path) -> None:
    """The global model equals FedPav's to the bit; the local scores are those of the personal models."""

    def run(exp: str, *words: str) -> Any:
        words = (*words, "trainer.accelerator=cpu", f"data.datasets=[{','.join(support.TINY[1:])}]")
        folder = tmp_path / exp.removeprefix("exp=")
        return train(compose([exp, *support.quick(tiny_root, folder, *words)]), folder)

    fedpav, ditto = run("exp=fedpav"), run("exp=ditto", "callbacks.ditto.lam=1")
    support.assert_equal(ditto.context.models, fedpav.context.models)
    one, other = (loop.context.history.state_dict() for loop in (fedpav, ditto))
    assert one != other


@pytest.mark.parametrize("lam", [-0.1, math.nan, math.inf])
def test_an_invalid_lam_is_refused(lam: float) -> None:
    with pytest.raises(FedReIDError, match=r"^callbacks\.ditto\.lam=.*at least 0"):
        Ditto(lam)
