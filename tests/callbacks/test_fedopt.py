"""Server optimizers after FedPav's average: rounds by hand, unchanged entries, and a restart."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import support
import torch

from fedreid_pl.callbacks import callback_factory
from fedreid_pl.callbacks.backbone_sync import BackboneSync
from fedreid_pl.callbacks.fedopt import FedOpt
from fedreid_pl.config import compose
from fedreid_pl.errors import FedReIDError
from fedreid_pl.experiment import train
from fedreid_pl.federation.messages import ClientUpdate, State
from fedreid_pl.federation.storage import read_state, write_state

BUFFERS = frozenset({"mean", "count"})
ADAPTIVE = ("adam", "yogi", "adagrad")


def draw_state(seed: int) -> State:
    draws = torch.Generator().manual_seed(seed)
    return {
        "weight": torch.randn(3, 2, generator=draws),
        "half": torch.randn(4, generator=draws).to(torch.bfloat16),
        "mean": torch.randn(5, generator=draws),
        "count": torch.tensor(seed),
    }


def server(initial: State) -> Any:
    federation = SimpleNamespace(
        seed=0, round=1, buffer_names=BUFFERS, initial_backbone=initial, models={"global": initial}
    )
    federation.model_of = lambda client: "global"
    return federation


def play(federation: Any, callbacks: list[Any], round: int) -> State:
    """Aggregates one round like the loop, over two clients with 1 and 3 images."""
    updates = [ClientUpdate(round, client, draw_state(10 * round + n), n, {}) for client, n in (("a", 1), ("b", 3))]
    weights: dict[str, float] = {}
    models: dict[str, State] = {}
    for callback in callbacks:
        callback.on_aggregation_start(federation, updates, weights)
    for callback in callbacks:
        models = callback.aggregate(federation, updates, weights, models)
    federation.models = models
    return models["global"]


def average_of(round: int) -> State:
    one, other = draw_state(10 * round + 1), draw_state(10 * round + 3)
    return {name: 0.25 * one[name].double() + 0.75 * other[name].double() for name in ("weight", "half", "mean")}


def test_momentum_zero_at_rate_one_equals_fedpav() -> None:
    initial = draw_state(0)
    plain, stepped = server(initial), server(initial)
    callbacks = [BackboneSync(), FedOpt(lr=1.0, beta1=0.0)]
    for round in (1, 2, 3):
        wanted, result = play(plain, [BackboneSync()], round), play(stepped, callbacks, round)
        assert list(result) == list(wanted)
        for name, value in wanted.items():
            torch.testing.assert_close(result[name], value)


def test_momentum_over_three_rounds_by_hand() -> None:
    federation, callbacks = server(draw_state(0)), [BackboneSync(), FedOpt(lr=0.5, beta1=0.8)]
    weight, moment = draw_state(0)["weight"].double(), torch.zeros(3, 2, dtype=torch.float64)
    for round in (1, 2, 3):
        result = play(federation, callbacks, round)
        moment = 0.8 * moment + (weight - average_of(round)["weight"])
        weight = weight - 0.5 * moment
        torch.testing.assert_close(result["weight"].double(), weight, rtol=1e-5, atol=1e-5)


def test_adam_over_three_rounds_by_hand() -> None:
    federation = server(draw_state(0))
    callbacks = [BackboneSync(), FedOpt("adam", lr=0.02, beta1=0.6, beta2=0.7, tau=0.1)]
    weight = draw_state(0)["weight"].double()
    m, v = torch.zeros(3, 2, dtype=torch.float64), torch.full((3, 2), 0.01, dtype=torch.float64)
    for round in (1, 2, 3):
        result = play(federation, callbacks, round)
        delta = average_of(round)["weight"] - weight
        m, v = 0.6 * m + 0.4 * delta, 0.7 * v + 0.3 * delta**2
        weight = weight + 0.02 * m / (v**0.5 + 0.1)
        torch.testing.assert_close(result["weight"].double(), weight, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["momentum", *ADAPTIVE])
def test_buffers_keep_their_average_and_inputs_do_not_change(optimizer: Any) -> None:
    initial = draw_state(0)
    federation, callbacks = server(initial), [BackboneSync(), FedOpt(optimizer, lr=0.3)]
    for round in (1, 2):
        old = {name: value.clone() for name, value in federation.models["global"].items()}
        before = federation.models["global"]
        result = play(federation, callbacks, round)
        torch.testing.assert_close(result["mean"].double(), average_of(round)["mean"], rtol=1e-5, atol=1e-5)
        assert int(result["count"]) == 10 * round + 3 and result["count"].dtype == torch.int64
        assert result["half"].dtype == torch.bfloat16
        for name, value in old.items():
            assert torch.equal(before[name], value), "the old model is not changed in place"
            assert name in BUFFERS or not torch.equal(result[name], value)


def test_local_batch_norm_does_not_change() -> None:
    federation, kept = server(draw_state(0)), torch.tensor([1.0, 2.0])
    federation.models["global"]["norm"] = kept
    callback = FedOpt("adam")
    for round in (1, 2):
        states = {"global": {**draw_state(round), "norm": kept}}
        federation.models = callback.aggregate(federation, [], {}, states)
    assert torch.equal(federation.models["global"]["norm"], kept)


@pytest.mark.parametrize("optimizer", ["momentum", *ADAPTIVE])
def test_a_restart_continues_bit_identically(optimizer: Any, tmp_path: Path) -> None:
    straight, broken = server(draw_state(0)), server(draw_state(0))
    one, other = FedOpt(optimizer), FedOpt(optimizer)
    for round in (1, 2):
        play(straight, [BackboneSync(), one], round)
        play(broken, [BackboneSync(), other], round)
    write_state(tmp_path / "state", {"callback": other.state_dict(), "models": broken.models})
    play(broken, [BackboneSync(), other], 3)  # lost
    state = read_state(tmp_path / "state")
    fresh = FedOpt(optimizer)
    fresh.load_state_dict(state["callback"])
    broken.models = state["models"]
    for round in (3, 4):
        wanted = play(straight, [BackboneSync(), one], round)
        result = play(broken, [BackboneSync(), fresh], round)
        assert all(torch.equal(result[name], wanted[name]) for name in wanted)
    forgetful = server(state["models"]["global"])
    assert not torch.equal(play(forgetful, [BackboneSync(), FedOpt(optimizer)], 3)["weight"], wanted["weight"])


def test_the_default_rate_depends_on_the_optimizer() -> None:
    assert FedOpt().lr == 1.0 and all(FedOpt(name).lr == 0.01 for name in ADAPTIVE)  # type: ignore[arg-type]
    made = callback_factory({"backbone_sync": {}, "fedopt": {"optimizer": "yogi", "lr": None}})()["fedopt"]
    assert isinstance(made, FedOpt) and made.lr == 0.01
    assert isinstance(made := callback_factory({"backbone_sync": {}, "fedopt": {"lr": 2}})()["fedopt"], FedOpt)
    assert made.lr == 2.0


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"lr": 0.0}, "callbacks.fedopt.lr=0.0: "),
        ({"lr": -1.0}, "callbacks.fedopt.lr=-1.0: "),
        ({"beta1": 1.0}, "callbacks.fedopt.beta1=1.0: "),
        ({"beta2": -0.1}, "callbacks.fedopt.beta2=-0.1: "),
        ({"beta2": float("nan")}, "callbacks.fedopt.beta2=nan: "),
        ({"tau": 0.0}, "callbacks.fedopt.tau=0.0: "),
        ({"optimizer": "sgd"}, "callbacks.fedopt.optimizer=sgd: must be one of momentum, adam, yogi, adagrad"),
    ],
)
def test_values_out_of_bounds_are_refused(options: dict, wanted: str) -> None:
    with pytest.raises(FedReIDError) as caught:
        callback_factory({"backbone_sync": {}, "fedopt": options})
    assert str(caught.value).startswith(wanted)


@pytest.mark.parametrize("exp", ["fedavgm", "fedadam", "fedyogi"])
def test_a_round_of_the_experiment(exp: str, tiny_root: Path, tmp_path: Path) -> None:
    words = support.quick(tiny_root, tmp_path, "rounds=1", "trainer.accelerator=cpu")
    loop = train(compose([f"exp={exp}", *words]), tmp_path)
    initial, model = loop.context.initial_backbone, loop.context.models["global"]
    kept = loop.callbacks["fedopt"].state_dict()
    parameters = [name for name in model if name not in loop.context.buffer_names]
    assert sorted(kept["first"]["global"]) == sorted(parameters)
    assert sorted(kept["second"].get("global", {})) == ([] if exp == "fedavgm" else sorted(parameters))
    for name in parameters:
        step = model[name] - initial[name]
        # after one round the first moment points from the average to the initial model
        assert bool((step * kept["first"]["global"][name] <= 0).all()) and bool(torch.isfinite(step).all())
        assert exp == "fedavgm" or float(step.abs().max()) <= 0.03
    assert any(bool((model[name] != initial[name]).any()) for name in parameters)
