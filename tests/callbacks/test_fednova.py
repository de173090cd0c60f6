"""FedNova: the steps that a real turn reports, the server's normalised average, and refused updates."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import support
import tiny_turn
import torch

from fedreid_pl.callbacks.backbone_sync import BackboneSync
from fedreid_pl.callbacks.fednova import FedNova
from fedreid_pl.config import compose
from fedreid_pl.experiment import train
from fedreid_pl.federation.messages import ClientUpdate, RejectedUpdate, State

STEPS = {"a": 2.0, "b": 30.0, "c": 7.5}
PARAMETERS = ("0.weight", "0.bias", "1.weight", "1.bias")


@pytest.mark.parametrize("precision", ["plain", "scaled", "fused"])
def test_a_turn_reports_its_effective_steps(precision: str) -> None:
    sent = tiny_turn.make_backbone().state_dict()
    job, batches = support.fit_job(1, "a", sent), tiny_turn.make_batches()
    module = tiny_turn.take_turn([FedNova()], job, tiny_turn.MOMENTUM, batches, precision=precision)
    buffer, wanted = 0.0, 0.0
    for factor in (1, 1, 1, 0.5, 0.5, 0.5):  # three batches, two epochs, the rate halves
        buffer = 0.8 * buffer + 1
        wanted += factor * buffer
    assert module.outbox.metrics["effective_steps"] == pytest.approx(wanted, rel=1e-12)
    assert type(module.outbox.metrics["effective_steps"]) is float
    plain = tiny_turn.take_turn([FedNova()], job, tiny_turn.PLAIN, batches, precision=precision)
    assert plain.outbox.metrics["effective_steps"] == pytest.approx(6, rel=1e-12)


def test_counting_does_not_change_the_training() -> None:
    sent = tiny_turn.make_backbone().state_dict()
    job, batches = support.fit_job(1, "a", sent), tiny_turn.make_batches()
    one, other = (
        tiny_turn.take_turn(callbacks, job, tiny_turn.MOMENTUM, batches).state_dict() for callbacks in ([FedNova()], [])
    )
    assert all(torch.equal(one[name], other[name]) for name in other)


def updates_of(steps: dict[str, float] = STEPS, without: str = "") -> list[ClientUpdate]:
    return [
        ClientUpdate(
            1,
            client,
            {
                name: value + number if "num_batches" in name else value
                for name, value in tiny_turn.make_backbone(number).state_dict().items()
                if not without or not name.startswith(without)
            },
            10 * number,
            {"effective_steps": steps[client]},
        )
        for number, client in enumerate(steps, 1)
    ]


def run_chain(updates: list[ClientUpdate], start: State) -> tuple[State, State, Any]:
    """Returns the global model after FedPav and after FedNova."""
    federation = tiny_turn.server(
        {"global": start}, seed=0, round=1, initial_backbone=start, model_of=lambda client: "global"
    )
    weights: dict[str, float] = {}
    average = BackboneSync()
    average.on_aggregation_start(federation, updates, weights)
    models = average.aggregate(federation, updates, weights, {})
    kept = dict(models["global"])
    result = FedNova().aggregate(federation, updates, weights, models)
    assert set(result) == {"global"}
    assert all(torch.equal(federation.models["global"][name], start[name]) for name in start)
    return kept, result["global"], federation


def test_the_server_normalises_parameters_but_not_buffers() -> None:
    start, updates = tiny_turn.make_backbone().state_dict(), updates_of()
    average, model, federation = run_chain(updates, start)
    assert list(model) == list(average)
    shares = np.array([1, 2, 3]) / 6
    steps = np.array(list(STEPS.values()))
    for name in model:
        if name not in PARAMETERS:
            assert torch.equal(model[name], average[name])
            continue
        old = start[name].double().numpy()
        ends = np.stack([update.backbone[name].double().numpy() for update in updates])
        directions = (ends - old) / steps.reshape(-1, *[1] * old.ndim)
        wanted = old + (shares * steps).sum() * np.tensordot(shares, directions, 1)
        np.testing.assert_allclose(model[name].numpy(), wanted, rtol=1e-4, atol=1e-5)
        assert not np.allclose(average[name].numpy(), wanted, atol=1e-2)
    assert federation.records == [("weights", client, "effective_steps", count) for client, count in STEPS.items()]


@pytest.mark.parametrize("steps", [{"a": 7.0, "b": 7.0, "c": 7.0}, {"a": 3.0}])
def test_equal_steps_or_a_single_client_give_fedpav(steps: dict[str, float]) -> None:
    average, model, _ = run_chain(updates_of(steps), tiny_turn.make_backbone().state_dict())
    for name, value in average.items():
        torch.testing.assert_close(model[name], value)


def test_local_batch_norm_is_not_normalised() -> None:
    start = tiny_turn.make_backbone().state_dict()
    _, model, _ = run_chain(updates_of(without="1."), start)
    assert set(model) == set(start)
    for name, value in start.items():
        assert torch.equal(model[name], value) == name.startswith("1."), name


@pytest.mark.parametrize("steps", [None, 0.0, -3.0, 0.5, math.nan, math.inf, 1e300, 321.0])
def test_an_update_with_impossible_steps_is_refused(steps: float | None) -> None:
    # 40 images, 2 epochs and a momentum of 0.5: at most 40 * 2 * 2 steps, or twice that if the rate rises
    optim = SimpleNamespace(momentum=0.5)
    federation = tiny_turn.server(config=SimpleNamespace(local_epochs=2, local_steps=None, optim=optim))
    update = ClientUpdate(1, "a", {}, 10**12, {} if steps is None else {"effective_steps": steps})
    with pytest.raises(RejectedUpdate, match="effective steps, expected 1 to 320"):
        FedNova().on_update(federation, update)
    for fine in (1.0, 12.5, 160.0):
        FedNova().on_update(federation, ClientUpdate(1, "a", {}, 10, {"effective_steps": fine}))


def test_a_real_round_equals_the_formula_over_its_clients(tiny_root: Path, tmp_path: Path) -> None:
    clients = support.TINY[1:]
    words = ("trainer.accelerator=cpu", "rounds=1", "batch_size=2", f"data.datasets=[{','.join(clients)}]")
    loop = train(compose(["exp=fednova", *support.quick(tiny_root, tmp_path, *words)]), tmp_path)
    worker: Any = loop.engine.worker  # type: ignore[attr-defined]
    updates = {client: worker.fit(support.fit_job(1, client, worker.initial)) for client in clients}
    steps = {}
    for client in clients:
        count = loop.context.clients[client] // 2  # batches of two; a single remaining image is dropped
        steps[client] = sum((1 - 0.9 ** (count - i)) / (1 - 0.9) for i in range(count))
        assert loop.context.history.series("weights", client, "effective_steps") == {1: pytest.approx(steps[client])}
    assert len(set(steps.values())) == 2
    total = sum(loop.context.clients.values())
    shares = {client: loop.context.clients[client] / total for client in clients}
    mean = sum(shares[client] * steps[client] for client in clients)
    for name in ("bottleneck.0.weight", "trunk.stem.0.weight"):
        old = worker.initial[name].double()
        change = sum(
            shares[client] * (updates[client].backbone[name].double() - old) / steps[client] for client in clients
        )
        torch.testing.assert_close(
            loop.context.models["global"][name].double(), old + mean * change, rtol=1e-4, atol=1e-6
        )
