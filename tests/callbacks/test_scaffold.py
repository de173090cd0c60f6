"""SCAFFOLD: corrected turns compared with SGD by hand and in a real worker, c at the server, c_k in the store."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support
import tiny_turn
import torch

from fedreid_pl.callbacks.backbone_sync import BackboneSync
from fedreid_pl.callbacks.scaffold import Scaffold
from fedreid_pl.config import compose
from fedreid_pl.errors import FedReIDError
from fedreid_pl.experiment import train
from fedreid_pl.federation.client.store import ClientStore
from fedreid_pl.federation.messages import ClientJob, ClientUpdate, State
from fedreid_pl.federation.server.checkpoint import Checkpoints
from fedreid_pl.federation.server.checks import check_update
from fedreid_pl.federation.server.context import RoundContext
from fedreid_pl.federation.server.loop import FederationLoop
from fedreid_pl.federation.storage import read_state, write_state

PARAMETERS = ("0.weight", "0.bias", "1.weight", "1.bias")
A, B = "mini-viper", "mini-ilids"


def control_of(seed: int, names: Iterable[str] = PARAMETERS) -> State:
    backbone = dict(tiny_turn.make_backbone(seed).named_parameters())
    return {name: 0.3 * backbone[name].detach() for name in names}


def prefixed(control: State) -> State:
    return {f"scaffold.{name}": value for name, value in control.items()}


# client half


@pytest.mark.parametrize("precision", ["plain", "scaled", "fused"])
@pytest.mark.parametrize("optim", [tiny_turn.PLAIN, tiny_turn.MOMENTUM])
def test_turns_equal_sgd_with_the_correction_by_hand(optim: Any, precision: str, tmp_path: Path) -> None:
    """Runs two turns of one client; its state goes through the store, its updates through the server's check."""
    store = ClientStore(tmp_path)
    own = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in control_of(1).items()}
    distance, speed = 0.0, 0.0
    for factor in (1, 1, 1, 0.5, 0.5, 0.5) if optim.schedule == "step" else (1,) * 6:
        speed = optim.momentum * speed + 1
        distance += optim.lr_backbone * factor * speed
    if optim is tiny_turn.PLAIN:
        assert distance == pytest.approx(6 * 0.05)  # the paper's K * lr
    for round in (1, 2):
        backbone, batches = tiny_turn.make_backbone(round), tiny_turn.make_batches(round)
        control = control_of(10 + round)
        job = support.fit_job(round, "a", backbone.state_dict(), {}, prefixed(control))
        client = Scaffold()
        if kept := store.load("a", round):
            client.load_client_state_dict(kept["scaffold"])
        module = tiny_turn.take_turn([client], job, optim, batches, precision=precision)
        store.save("a", round, {"scaffold": client.client_state_dict()})
        correction = {name: value.double() - own[name] for name, value in control.items()}
        hand = tiny_turn.by_hand(backbone, optim, batches, lambda name, weight, c=correction: c[name])
        for name, value in module.backbone.named_parameters():
            torch.testing.assert_close(value.detach().double(), hand[name], rtol=1e-4, atol=1e-5)
            moved = (backbone.state_dict()[name].double() - hand[name]) / distance
            new = own[name] - control[name].double() + moved
            change = module.outbox.extras[f"scaffold.{name}"]
            torch.testing.assert_close(change.double(), new - own[name], rtol=1e-3, atol=1e-4)
            own[name] = new
        update = ClientUpdate(round, "a", module.backbone.state_dict(), 18, {}, module.outbox.extras)
        check_update(update, job)
        for name, value in control_of(10 + round).items():
            assert torch.equal(job.extras[f"scaffold.{name}"], value), "the sent tensors do not change"
    kept = store.load("a", 3)
    assert kept is not None and set(kept["scaffold"]["control"]) == set(PARAMETERS)
    for name, value in kept["scaffold"]["control"].items():
        torch.testing.assert_close(value.double(), own[name], rtol=1e-3, atol=1e-4)


def test_the_correction_uses_each_parameters_learning_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    def two_rates(self: Any) -> torch.optim.Optimizer:
        groups = [(self.backbone[0], 0.1), (self.backbone[1], 0.02), (self.head, 0.2)]
        parts = [{"params": list(part.parameters()), "lr": rate, "base_lr": rate} for part, rate in groups]
        return torch.optim.SGD(parts)

    monkeypatch.setattr("fedreid_pl.client.ReIDClient.configure_optimizers", two_rates)
    start, control = tiny_turn.make_backbone(), control_of(1)
    job = support.fit_job(1, "a", start.state_dict(), {}, prefixed(control))
    module = tiny_turn.take_turn([Scaffold()], job, tiny_turn.PLAIN, tiny_turn.make_batches())
    for name, value in module.backbone.named_parameters():
        moved = (start.state_dict()[name] - value.detach()) / (6 * (0.1 if name[0] == "0" else 0.02))
        torch.testing.assert_close(module.outbox.extras[f"scaffold.{name}"], moved - control[name])


def test_only_exchanged_parameters_are_corrected() -> None:
    start, batches = tiny_turn.make_backbone(), tiny_turn.make_batches()
    control = control_of(1, PARAMETERS[:2])
    shared = {name: value for name, value in start.state_dict().items() if name.startswith("0.")}
    client = Scaffold()
    job = support.fit_job(1, "a", shared, {}, prefixed(control))
    module = tiny_turn.take_turn([client], job, tiny_turn.MOMENTUM, batches)
    hand = tiny_turn.by_hand(start, tiny_turn.MOMENTUM, batches, lambda name, weight: control.get(name, 0.0))
    for name, value in module.backbone.named_parameters():
        torch.testing.assert_close(value.detach().double(), hand[name], rtol=1e-4, atol=1e-5)
    assert set(module.outbox.extras) == set(prefixed(control))
    assert set(client.client_state_dict()["control"]) == set(control)
    assert Scaffold().client_state_dict() == {}, "an untrained client has no state"


# server half


def test_c_starts_with_zeros_for_exchanged_parameters() -> None:
    federation, backbone = tiny_turn.server(), tiny_turn.make_backbone().state_dict()
    job = Scaffold().on_distribute(
        federation, support.fit_job(1, "a", backbone, {"evaluate": True}, {"x": torch.ones(1)})
    )
    assert list(job.extras) == ["x", *prefixed(control_of(1))] and job.config == {"evaluate": True}
    for name in PARAMETERS:
        value = job.extras[f"scaffold.{name}"]
        assert (value.shape, value.dtype) == (backbone[name].shape, backbone[name].dtype) and not value.any()
    linear = {name: value for name, value in backbone.items() if name.startswith("0.")}
    fedbn = Scaffold().on_distribute(federation, support.fit_job(1, "a", linear))
    assert list(fedbn.extras) == ["scaffold.0.weight", "scaffold.0.bias"]


def updates_of(clients: str) -> list[ClientUpdate]:
    return [
        ClientUpdate(1, client, {}, 10, {}, prefixed(control_of(20 + "abc".index(client))))
        for client in clients  # the average is given, so no backbones are needed
    ]


@pytest.mark.parametrize("clients", ["abc", "b", "ca"])
@pytest.mark.parametrize("server_lr", [1.0, 0.25, 1.5])
def test_the_server_steps_towards_the_average_and_updates_c(server_lr: float, clients: str, tmp_path: Path) -> None:
    start, average = tiny_turn.make_backbone(1).state_dict(), tiny_turn.make_backbone(2).state_dict()
    average["1.running_mean"] = torch.full((4,), 3.0)
    federation = tiny_turn.server({"global": start})
    callback = Scaffold(server_lr)
    callback.load_state_dict({"control": control_of(5)})
    before = {name: value.clone() for name, value in start.items()}
    models = callback.aggregate(federation, updates_of(clients), dict.fromkeys(clients, 0.9), {"global": average})
    assert list(models) == ["global"] and list(models["global"]) == list(average)
    for name, value in models["global"].items():
        old, new = (state[name].double().numpy() for state in (before, average))
        wanted = old + server_lr * (new - old) if name in PARAMETERS else new
        np.testing.assert_allclose(value.double().numpy(), wanted, rtol=1e-5, atol=1e-6)
        assert torch.equal(start[name], before[name])
        assert server_lr != 1 or torch.equal(value, average[name]), "a rate of one gives the average to the bit"

    write_state(tmp_path / "round.ckpt", {"callbacks": {"scaffold": callback.state_dict()}})
    restored = Scaffold(server_lr)
    restored.load_state_dict(read_state(tmp_path / "round.ckpt")["callbacks"]["scaffold"])
    sent = [half.on_distribute(federation, support.fit_job(2, "a", start)).extras for half in (callback, restored)]
    for name in PARAMETERS:
        changes = sum(control_of(20 + "abc".index(client))[name].double().numpy() for client in clients)
        wanted = control_of(5)[name].double().numpy() + changes / 3
        np.testing.assert_allclose(sent[0][f"scaffold.{name}"].numpy(), wanted, rtol=1e-5, atol=1e-6)
        assert torch.equal(sent[1][f"scaffold.{name}"], sent[0][f"scaffold.{name}"])


def test_without_c_in_the_checkpoint_c_starts_with_zeros() -> None:
    callback = Scaffold()
    callback.load_state_dict({})
    job = callback.on_distribute(tiny_turn.server(), support.fit_job(1, "a", tiny_turn.make_backbone().state_dict()))
    assert len(job.extras) == 4 and not any(value.any() for value in job.extras.values())


class Engine:
    """An engine that adds one to every weight and returns a different change per client; `bad` returns NaN."""

    def __init__(self, bad: str) -> None:
        self.bad, self.sent = bad, []  # type: ignore[var-annotated]

    def fit(self, jobs: Iterable[ClientJob]) -> Iterator[ClientUpdate]:
        for job in list(jobs):
            self.sent.append(job)
            backbone = {name: value + 1 for name, value in job.backbone.items()}
            extras = prefixed(control_of("abc".index(job.client)))
            if job.client == self.bad:
                extras = {name: value * math.nan for name, value in extras.items()}
            yield ClientUpdate(job.round, job.client, backbone, 10, {}, extras)

    def evaluate(self, jobs: Iterable[ClientJob]) -> Iterator[ClientUpdate]:
        yield from ()

    def close(self) -> None:
        pass


def test_a_refused_client_does_not_change_c(tmp_path: Path) -> None:
    engine, start = Engine("b"), tiny_turn.make_backbone().state_dict()
    config, buffers = compose(["exp=scaffold", "rounds=2", "client_retries=0"]), tiny_turn.server().buffer_names
    context = RoundContext(config, dict.fromkeys("abc", 10), {client: (client,) for client in "abc"}, start, buffers)
    callbacks = {"backbone_sync": BackboneSync(), "scaffold": Scaffold()}
    FederationLoop(context, engine, callbacks, Checkpoints(tmp_path / "checkpoints")).run()
    assert context.rejected == {"b": 2}
    first, second = engine.sent[:3], engine.sent[3:]
    for name in PARAMETERS:
        assert not any(job.extras[f"scaffold.{name}"].any() for job in first)
        wanted = (control_of(0)[name] + control_of(2)[name]) / 3
        for job in second:
            torch.testing.assert_close(job.extras[f"scaffold.{name}"], wanted)


# a real federation


def test_round_one_equals_fedpav_to_the_bit_and_c_is_the_mean_of_all_c_k(tiny_root: Path, tmp_path: Path) -> None:
    words = ("trainer.accelerator=cpu", "rounds=1", "batch_size=3", f"data.datasets=[{A},{B}]", "seed=2")
    pav, loop = (
        train(compose([f"exp={exp}", *support.quick(tiny_root, tmp_path / exp, *words)]), tmp_path / exp)
        for exp in ("fedpav", "scaffold")
    )
    model = loop.context.models["global"]
    assert list(model) == list(pav.context.models["global"])
    for name, value in pav.context.models["global"].items():
        assert torch.equal(model[name], value), name
    worker: Any = loop.engine.worker  # type: ignore[attr-defined]
    own = [worker.store.load(client, before=2)["callbacks"]["scaffold"]["control"] for client in (A, B)]
    control = loop.callbacks["scaffold"].state_dict()["control"]
    assert set(control) == {name for name, _ in worker.backbone.named_parameters()} == set(own[0]) == set(own[1])
    for name, value in control.items():
        torch.testing.assert_close(value, (own[0][name] + own[1][name]) / 2, rtol=1e-5, atol=1e-8)
    assert loop.context.costs.bytes_up > 1.5 * pav.context.costs.bytes_up


def test_a_real_turn_of_one_step_differs_from_fedpavs_by_the_correction(tiny_root: Path, tmp_path: Path) -> None:
    rate = 0.5
    words = ["trainer.accelerator=cpu", "rounds=1", "batch_size=64", f"data.datasets=[{A},{B}]"]
    words += ["optim.momentum=0", "optim.weight_decay=0", f"optim.lr_backbone={rate}", "callbacks.scaffold={}"]
    loop = train(compose(["exp=scaffold", *support.quick(tiny_root, tmp_path, *words)]), tmp_path)
    worker: Any = loop.engine.worker  # type: ignore[attr-defined]
    start = loop.context.models["global"]
    job = loop.callbacks["scaffold"].on_distribute(loop.context, support.fit_job(2, A, start))
    kept = worker.store.load(A, before=2)["callbacks"]["scaffold"]["control"]
    corrected = worker.fit(job)
    free = worker.fit(replace(job, extras={f"scaffold.{name}": value for name, value in kept.items()}))  # c = c_k
    after = worker.store.load(A, before=3)["callbacks"]["scaffold"]["control"]
    felt = 0.0
    for name, own in kept.items():
        control = job.extras[f"scaffold.{name}"]
        change = corrected.backbone[name] - free.backbone[name]
        torch.testing.assert_close(change, -rate * (control - own), rtol=1e-3, atol=1e-6)
        felt = max(felt, float((control - own).abs().max()))
        gradient = (start[name] - free.backbone[name]) / rate
        torch.testing.assert_close(after[name], gradient, rtol=1e-4, atol=1e-5)
        plain = (start[name] - corrected.backbone[name]) / rate - control  # c_k+ - c_k
        torch.testing.assert_close(corrected.extras[f"scaffold.{name}"], plain, rtol=1e-4, atol=1e-5)
    assert felt > 0.01, "the correction is not zero"


@pytest.mark.parametrize("server_lr", [0.0, -1.0, math.nan, math.inf])
def test_an_invalid_server_rate_is_refused(server_lr: float) -> None:
    with pytest.raises(FedReIDError, match=r"^callbacks\.scaffold\.server_lr=.*above 0"):
        Scaffold(server_lr)
