"""FedPav's server half against averages written by hand, and its client half around a module."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from fedreid_pl.callbacks.backbone_sync import BackboneSync
from fedreid_pl.client import Outbox
from fedreid_pl.federation.messages import ClientJob, ClientUpdate, State

BUFFERS = frozenset({"1.running_mean", "1.running_var", "1.num_batches_tracked"})


def make_net(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    for _ in range(seed):
        net(torch.randn(6, 3))
    return net.eval()


def updates_of(sizes: dict[str, int]) -> list[ClientUpdate]:
    return [
        ClientUpdate(2, client, make_net(number).state_dict(), size, {})
        for number, (client, size) in enumerate(sizes.items(), 1)
    ]


def server(**more: Any) -> Any:
    return SimpleNamespace(
        seed=0, round=2, buffer_names=BUFFERS, models={}, initial_backbone={}, model_of=lambda client: "global", **more
    )


def average(updates: list[ClientUpdate], callback: BackboneSync, round: int = 2) -> tuple[State, dict[str, float]]:
    federation, weights = server(), {}
    federation.round = round
    callback.on_aggregation_start(federation, updates, weights)
    models = callback.aggregate(federation, updates, weights, {})
    assert models is not None and set(models) == {"global"}
    return models["global"], weights


def test_weights_are_shares_of_the_images_and_the_model_their_average() -> None:
    sizes = {"a": 10, "b": 30, "c": 60}
    updates = updates_of(sizes)
    state, weights = average(updates, BackboneSync())
    assert weights == pytest.approx({"a": 0.1, "b": 0.3, "c": 0.6})
    for name in ("0.weight", "0.bias", "1.weight", "1.running_mean", "1.running_var"):
        by_hand = sum(size * update.backbone[name].double() for size, update in zip((1, 3, 6), updates, strict=True))
        torch.testing.assert_close(state[name].double(), by_hand / 10, rtol=1e-5, atol=1e-6)
    assert int(state["1.num_batches_tracked"]) == 3


def test_over_one_client_it_is_the_identity() -> None:
    (update,) = updates_of({"only": 7})
    for callback in (BackboneSync(), BackboneSync(batch_norm="first")):
        state, weights = average([update], callback)
        assert weights == {"only": 1.0}
        assert set(state) == set(update.backbone)
        for name, value in update.backbone.items():
            assert torch.equal(state[name], value) and state[name].dtype == value.dtype


def test_first_takes_all_buffers_of_one_client_drawn_each_round() -> None:
    updates = updates_of({"a": 10, "b": 30, "c": 60})
    plain, _ = average(updates, BackboneSync())
    sources = set()
    for round in range(1, 31):
        state, _ = average(updates, BackboneSync(batch_norm="first"), round)
        again, _ = average(updates, BackboneSync(batch_norm="first"), round)
        matches = [
            update.client
            for update in updates
            if all(torch.equal(state[name], update.backbone[name]) for name in BUFFERS)
        ]
        assert len(matches) == 1, "the buffers are of one client, all of them"
        sources.add(matches[0])
        for name in plain:
            assert torch.equal(again[name], state[name])
            assert name in BUFFERS or torch.equal(state[name], plain[name])
    assert sources == {"a", "b", "c"}


def test_clients_get_the_model_that_they_are_assigned_to() -> None:
    one, other = make_net(1).state_dict(), make_net(2).state_dict()
    federation = server(initial_backbone=one, model_of=lambda client: {"b": "second"}.get(client, "global"))
    callback = BackboneSync()
    callback.on_federation_start(federation)
    federation.models["second"] = other
    jobs = [ClientJob(2, client, {}, {"evaluate": True}) for client in "ab"]
    sent = [callback.on_distribute(federation, job) for job in jobs]
    assert [(job.round, job.client, job.config) for job in sent] == [
        (2, "a", {"evaluate": True}),
        (2, "b", {"evaluate": True}),
    ]
    assert all(torch.equal(sent[0].backbone[name], one[name]) for name in one)
    assert all(torch.equal(sent[1].backbone[name], other[name]) for name in other)
    assert jobs[0].backbone == {}


def test_the_client_half_loads_before_and_copies_after() -> None:
    sent, callback = make_net(3).state_dict(), BackboneSync()
    module: Any = SimpleNamespace(backbone=make_net(1), job=ClientJob(1, "a", sent), outbox=Outbox())
    trainer: Any = None
    callback.on_fit_start(trainer, module)
    for name, value in module.backbone.state_dict().items():
        assert torch.equal(value, sent[name])
    with torch.no_grad():
        module.backbone[0].weight.add_(1.0)
    callback.on_fit_end(trainer, module)
    assert list(module.outbox.backbone) == list(sent)
    assert torch.equal(module.outbox.backbone["0.weight"], sent["0.weight"] + 1.0)
    with torch.no_grad():
        module.backbone[0].weight.zero_()
    assert torch.equal(module.outbox.backbone["0.weight"], sent["0.weight"] + 1.0), "the update is a copy"
    callback.on_test_start(trainer, module)
    assert not module.backbone[0].weight.any(), "after training the local model is evaluated, not the one sent"
    module.outbox = Outbox()
    callback.on_test_start(trainer, module)
    assert torch.equal(module.backbone[0].weight, sent["0.weight"])
