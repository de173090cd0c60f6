"""FedPav's server half, compared with averages computed by hand, and its client half around a module."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import support
import torch
from torch import nn

from fedreid_pl.callbacks.backbone_sync import BackboneSync
from fedreid_pl.client import Outbox
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.messages import ClientUpdate, State
from fedreid_pl.federation.server.network import ServerNetwork

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


class Server(SimpleNamespace):
    """The attributes of a federation that the server half uses."""

    def travelling(self, model: State) -> State:
        return {name: value for name, value in model.items() if self.exchanged is None or name in self.exchanged}


def server(**more: Any) -> Any:
    own = {"seed": 0, "round": 2, "buffer_names": BUFFERS, "models": {}, "initial_backbone": {}, "exchanged": None}
    return Server(**{**own, "model_of": lambda client: "global", **more})


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
        assert len(matches) == 1, "all buffers come from one client"
        sources.add(matches[0])
        for name in plain:
            assert torch.equal(again[name], state[name])
            assert name in BUFFERS or torch.equal(state[name], plain[name])
    assert sources == {"a", "b", "c"}


def test_clients_receive_their_assigned_model() -> None:
    one, other = make_net(1).state_dict(), make_net(2).state_dict()
    federation = server(initial_backbone=one, model_of=lambda client: {"b": "second"}.get(client, "global"))
    callback = BackboneSync()
    callback.on_federation_start(federation)
    federation.models["second"] = other
    jobs = [support.fit_job(2, client, {}, {"evaluate": True}) for client in "ab"]
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
    module: Any = SimpleNamespace(backbone=make_net(1), job=support.fit_job(1, "a", sent), outbox=Outbox())
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
    assert not module.backbone[0].weight.any(), "after training the local model is evaluated, not the update"
    module.job, module.outbox = support.evaluate_job(1, "a", sent), Outbox()
    callback.on_test_start(trainer, module)
    assert torch.equal(module.backbone[0].weight, sent["0.weight"])


def test_clients_that_share_a_model_are_averaged_separately() -> None:
    updates = updates_of({"a": 10, "b": 30, "c": 60})
    federation = server(model_of=lambda client: "left" if client in "ac" else "right")
    models = BackboneSync().aggregate(federation, updates, {"a": 0.25, "b": 1.0, "c": 0.75}, {"kept": {}})
    assert set(models) == {"left", "right", "kept"}
    a, b, c = (update.backbone["0.weight"].double() for update in updates)
    torch.testing.assert_close(models["left"]["0.weight"].double(), a / 4 + 3 * c / 4)
    assert torch.equal(models["right"]["0.weight"].double(), b)


NORM = {"1.weight", "1.bias", *BUFFERS}


def fedbn_server(**more: Any) -> Any:
    return server(server=SimpleNamespace(network=lambda: make_net(9)), **more)


def test_fedbn_sends_and_averages_all_entries_except_batch_norm() -> None:
    initial, callback = make_net(4).state_dict(), BackboneSync(batch_norm="local")
    federation = fedbn_server(initial_backbone=initial)
    callback.on_federation_start(federation)
    job = callback.on_distribute(federation, support.fit_job(1, "a"))
    assert set(job.backbone) == {"0.weight", "0.bias"}
    states = [{name: make_net(number).state_dict()[name] for name in job.backbone} for number in (1, 2)]
    updates = [ClientUpdate(1, client, state, 5, {}) for client, state in zip("ab", states, strict=True)]
    model = callback.aggregate(federation, updates, {"a": 0.5, "b": 0.5}, {})["global"]
    assert list(model) == list(initial)
    torch.testing.assert_close(model["0.weight"], (states[0]["0.weight"] + states[1]["0.weight"]) / 2)
    assert all(torch.equal(model[name], initial[name]) for name in NORM)


@pytest.mark.parametrize("policy", ["local", "recalibrate", "first", "average"])
def test_the_error_names_a_trunk_without_batch_norm(policy: Any) -> None:
    warnings: list[str] = []
    for norm in (nn.LayerNorm(4), nn.BatchNorm1d(4)):
        network = nn.ModuleDict({"trunk": nn.Sequential(nn.Linear(3, 4), norm), "bottleneck": nn.BatchNorm1d(4)})
        federation = fedbn_server(initial_backbone=network.state_dict(), warn=warnings.append)
        federation.server = SimpleNamespace(network=lambda network=network: network)
        BackboneSync(batch_norm=policy).on_federation_start(federation)
    told = f"callbacks.backbone_sync.batch_norm={policy}: the trunk has no BatchNorm"
    assert [warning.startswith(told) for warning in warnings] == ([] if policy == "average" else [True])


def test_fedbn_keeps_each_clients_batch_norm_for_training_and_for_evaluation() -> None:
    sent = {name: value for name, value in make_net(3).state_dict().items() if name not in NORM}
    trained = make_net(5)
    first: Any = SimpleNamespace(backbone=make_net(1), job=support.fit_job(1, "a", sent), outbox=Outbox())
    callback = BackboneSync(batch_norm="local")
    callback.on_fit_start(None, first)  # type: ignore[arg-type]
    for name, value in first.backbone.state_dict().items():
        assert torch.equal(value, sent[name] if name in sent else make_net(1).state_dict()[name]), name
    first.backbone = trained
    callback.on_fit_end(None, first)  # type: ignore[arg-type]
    assert set(first.outbox.backbone) == {"0.weight", "0.bias"}
    again = BackboneSync(batch_norm="local")
    again.load_client_state_dict(callback.client_state_dict())
    whole = make_net(6).state_dict()  # the server's evaluation job contains BatchNorm, but the client uses its own
    second: Any = SimpleNamespace(backbone=make_net(1), job=support.evaluate_job(2, "a", whole), outbox=Outbox())
    again.on_test_start(None, second)  # type: ignore[arg-type]
    for name, value in second.backbone.state_dict().items():
        assert torch.equal(value, (trained.state_dict() if name in NORM else whole)[name]), name


@pytest.mark.parametrize(
    ("options", "travels"),
    [
        ({"keep": ["1.*"]}, {"0.weight", "0.bias"}),
        ({"exchange": ["*.weight"]}, {"0.weight", "1.weight"}),
        ({"exchange": ["0.*"], "keep": ["*.bias"]}, {"0.weight"}),
        ({"exchange": ["*.weight", "*.bias"], "batch_norm": "local"}, {"0.weight", "0.bias"}),
    ],
)
def test_patterns_select_the_exchanged_entries(options: dict[str, Any], travels: set[str]) -> None:
    callback, initial = BackboneSync(**options), make_net(4).state_dict()
    federation = fedbn_server(initial_backbone=initial)
    callback.on_federation_start(federation)
    job = callback.on_distribute(federation, support.fit_job(1, "a"))
    assert set(job.backbone) == set(job.exchanged) == travels == callback.exchanged(make_net(1))
    module: Any = SimpleNamespace(backbone=make_net(2), job=job, outbox=Outbox())
    callback.on_fit_start(None, module)  # type: ignore[arg-type]
    own = make_net(2).state_dict()
    for name, value in module.backbone.state_dict().items():
        assert torch.equal(value, initial[name] if name in travels else own[name]), name
    callback.on_fit_end(None, module)  # type: ignore[arg-type]
    assert set(module.outbox.backbone) == travels
    assert set(callback.client_state_dict()["own"]) == set(own) - travels


def test_kept_entries_are_not_averaged_and_a_pattern_without_a_match_is_refused() -> None:
    initial, callback = make_net(4).state_dict(), BackboneSync(keep=["1.*"])
    states = [{name: make_net(number).state_dict()[name] for name in ("0.weight", "0.bias")} for number in (1, 2)]
    updates = [ClientUpdate(1, client, state, 5, {}) for client, state in zip("ab", states, strict=True)]
    model = callback.aggregate(server(initial_backbone=initial), updates, {"a": 0.5, "b": 0.5}, {})["global"]
    torch.testing.assert_close(model["0.bias"], (states[0]["0.bias"] + states[1]["0.bias"]) / 2)
    assert all(torch.equal(model[name], initial[name]) for name in NORM)
    for options in ({"keep": ["1.*", "head.*"]}, {"exchange": ["head.*"]}):
        with pytest.raises(FedReIDError, match=r"backbone_sync\.(keep|exchange)=head\.\*: matches no entry.*0\.weight"):
            BackboneSync(**options).exchanged(make_net(1))
    with pytest.raises(FedReIDError, match="no entry of the backbone is exchanged"):
        BackboneSync(keep=["*"]).exchanged(make_net(1))


def test_a_job_with_a_missing_tensor_is_an_error_at_the_client() -> None:
    sent = {name: value for name, value in make_net(3).state_dict().items() if name != "1.running_mean"}
    module: Any = SimpleNamespace(backbone=make_net(1), job=support.fit_job(1, "a", sent), outbox=Outbox())
    with pytest.raises(RuntimeError, match="running_mean"):
        BackboneSync().on_fit_start(None, module)  # type: ignore[arg-type]


def test_recalibrate_estimates_only_the_statistics_on_the_public_images() -> None:
    images = [torch.randn(8, 3, generator=torch.Generator().manual_seed(number)) for number in range(3)]
    network = ServerNetwork(lambda: make_net(9))
    network.batches = lambda size: iter(images)  # type: ignore[method-assign]
    model = make_net(2).state_dict()
    config = SimpleNamespace(data=SimpleNamespace(test_batch_size=8))
    federation = server(server=network, config=config)
    federation.models["global"] = model
    BackboneSync(batch_norm="recalibrate").on_aggregation_end(federation, [])
    after = federation.models["global"]
    hidden = [batch.double() @ model["0.weight"].double().T + model["0.bias"].double() for batch in images]
    torch.testing.assert_close(after["1.running_mean"].double(), torch.stack([h.mean(0) for h in hidden]).mean(0))
    torch.testing.assert_close(after["1.running_var"].double(), torch.stack([h.var(0) for h in hidden]).mean(0))
    for name in ("0.weight", "0.bias", "1.weight", "1.bias", "1.num_batches_tracked"):
        assert torch.equal(after[name], model[name]), name
