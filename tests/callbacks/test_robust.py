"""Robust aggregation instead of FedPav's average: weights, changed entries, missing updates, and refusals."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import support
import torch

from fedreid_pl.callbacks import callback_factory
from fedreid_pl.callbacks.backbone_sync import BackboneSync
from fedreid_pl.callbacks.robust import Robust
from fedreid_pl.config import compose
from fedreid_pl.errors import FedReIDError
from fedreid_pl.experiment import train
from fedreid_pl.federation.messages import ClientUpdate, State
from fedreid_pl.federation.server.loop import FederationLoop
from fedreid_pl.federation.storage import read_state, write_state

RULES: Any = ("median", "trimmed_mean", "krum", "multi_krum")


def draw_state(seed: int) -> State:
    draws = torch.Generator().manual_seed(seed)
    return {
        "weight": torch.randn(3, 2, generator=draws),
        "mean": torch.randn(5, generator=draws),
        "count": torch.tensor(100 + seed),
    }


def updates_of(count: int, **lies: State) -> list[ClientUpdate]:
    honest = [ClientUpdate(1, f"c{n}", draw_state(n), 10**n, {}) for n in range(count)]
    return [*honest, *(ClientUpdate(1, client, state, 10**9, {}) for client, state in lies.items())]


def lie(size: float) -> State:
    state = {name: torch.full_like(value, size) for name, value in draw_state(0).items() if name != "count"}
    return {**state, "count": torch.tensor(2**62)}


def play(updates: list[ClientUpdate], *callbacks: Any) -> tuple[State, dict[str, float], list[str]]:
    """Aggregates one round like the loop."""
    warnings: list[str] = []
    federation: Any = SimpleNamespace(seed=0, round=1, buffer_names={"mean", "count"}, initial_backbone={})
    federation.warn, federation.model_of = warnings.append, lambda client: "global"
    weights: dict[str, float] = {}
    models: dict[str, State] = {}
    for callback in (BackboneSync(), *callbacks):
        callback.on_aggregation_start(federation, updates, weights)
    for callback in (BackboneSync(), *callbacks):
        models = callback.aggregate(federation, updates, weights, models)
    assert set(models) == {"global"} and list(weights) == [update.client for update in updates]
    return models["global"], weights, warnings


def columns(updates: list[ClientUpdate], name: str) -> np.ndarray:
    return np.stack([update.backbone[name].double().numpy() for update in updates])


def test_median_and_trimmed_mean_ignore_the_numbers_of_images() -> None:
    updates = updates_of(5)
    for rule, wanted in (("median", np.median), ("trimmed_mean", lambda v, axis: np.sort(v, axis)[1:-1].mean(axis))):
        state, weights, warnings = play(updates, Robust(rule))  # type: ignore[arg-type]
        assert weights == {update.client: 0.2 for update in updates} and warnings == []
        assert state["weight"].numpy() == pytest.approx(wanted(columns(updates, "weight"), axis=0), rel=1e-6)
        assert state["mean"].numpy() == pytest.approx(np.median(columns(updates, "mean"), axis=0), rel=1e-6)
        assert int(state["count"]) == 102


def test_krum_averages_the_selected_parameters_and_sets_the_weights_accordingly() -> None:
    updates = updates_of(6)
    points = columns(updates, "weight").reshape(6, -1)
    distances = np.sort(((points[:, None] - points[None]) ** 2).sum(2), axis=1)[:, 1:]
    ranked = np.argsort(distances[:, :3].sum(1), kind="stable")  # n - f - 2 = 3
    median = np.median(columns(updates, "mean"), axis=0)
    state, weights, _ = play(updates, Robust("krum"))
    assert weights == {update.client: float(n == ranked[0]) for n, update in enumerate(updates)}
    assert torch.equal(state["weight"], updates[ranked[0]].backbone["weight"])
    assert state["mean"].numpy() == pytest.approx(median, rel=1e-6) and int(state["count"]) == 102
    state, weights, _ = play(updates, Robust("multi_krum"))
    chosen = sorted(ranked[:5])
    assert weights == {update.client: 0.2 if n in chosen else 0.0 for n, update in enumerate(updates)}
    assert state["weight"].numpy() == pytest.approx(columns(updates, "weight")[chosen].mean(0), rel=1e-5, abs=1e-6)
    assert state["mean"].numpy() == pytest.approx(median, rel=1e-6) and int(state["count"]) == 102


@pytest.mark.parametrize("rule", RULES)
def test_an_attacker_cannot_set_the_statistics(rule: Any) -> None:
    """Krum selects the attacker, whose parameters are central among the honest ones; its statistics are arbitrary."""
    honest = updates_of(5)
    middle = torch.from_numpy(columns(honest, "weight").mean(0)).float()
    attacker = {"weight": middle, "mean": torch.full((5,), 1e6), "count": torch.tensor(2**62)}
    updates = updates_of(5, attacker=attacker)
    state, weights, _ = play(updates, Robust(rule))
    assert weights["attacker"] > 0
    assert state["mean"].numpy() == pytest.approx(np.median(columns(updates, "mean"), axis=0), rel=1e-6)
    assert float(state["mean"].abs().max()) < 10 and int(state["count"]) == 102
    if rule == "krum":
        assert weights["attacker"] == 1.0 and torch.equal(state["weight"], middle)


@pytest.mark.parametrize("rule", ["krum", "multi_krum"])
def test_statistics_do_not_affect_krums_selection(rule: Any) -> None:
    """The attacker alters parameters and sends average statistics; the honest clients' statistics differ widely."""
    updates = updates_of(5, attacker={**draw_state(0), "weight": torch.full((3, 2), 50.0)})
    apart = [
        ClientUpdate(1, update.client, {**update.backbone, "mean": update.backbone["mean"] * 1e4 * n}, 10, {})
        for n, update in enumerate(updates[:-1], 1)
    ]
    state, weights, _ = play([*apart, updates[-1]], Robust(rule))
    assert weights["attacker"] == 0.0 and float(state["weight"].max()) < 10


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", [1e6, 1e30])
def test_an_attacker_with_the_most_images_changes_little(rule: Any, size: float) -> None:
    updates = updates_of(5, attacker=lie(size))
    state, weights, warnings = play(updates, Robust(rule))
    for name in ("weight", "mean", "count"):
        honest = columns(updates[:5], name)
        assert (honest.min(0) <= state[name].double().numpy()).all(), name
        assert (state[name].double().numpy() <= honest.max(0)).all(), name
    assert sum(weights.values()) == pytest.approx(1.0) and warnings == []
    assert weights["attacker"] == (0.0 if "krum" in rule else pytest.approx(1 / 6))
    average, _, _ = play(updates)
    assert float(average["weight"].abs().min()) > 0.9 * size, "FedPav's average follows the attacker"


@pytest.mark.parametrize("rule", RULES)
def test_with_one_client_it_equals_fedpav(rule: Any) -> None:
    updates = updates_of(1)
    state, weights, warnings = play(updates, Robust(rule))
    assert weights == {"c0": 1.0} and len(warnings) == ("krum" in rule)
    assert all(torch.equal(state[name], value) for name, value in updates[0].backbone.items())


@pytest.mark.parametrize("rule", RULES)
def test_a_round_with_two_updates_uses_their_mean_and_gives_a_warning(rule: Any) -> None:
    updates = updates_of(2)
    state, weights, warnings = play(updates, Robust(rule))
    assert weights == {"c0": 0.5, "c1": 0.5}
    torch.testing.assert_close(state["weight"].numpy(), columns(updates, "weight").mean(0).astype(np.float32))
    assert warnings if rule != "median" else not warnings
    assert all("plain mean" in text for text in warnings)


@pytest.mark.parametrize(("count", "lowered"), [(3, 0), (4, 0), (5, 1), (6, 1), (7, None)])
def test_a_round_with_too_few_updates_tolerates_fewer_attackers(count: int, lowered: int | None) -> None:
    updates = updates_of(count)
    state, _, warnings = play(updates, Robust("krum", byzantine=2))
    same, _, silent = play(updates, Robust("krum", byzantine=2 if lowered is None else lowered))
    assert all(torch.equal(state[name], same[name]) for name in state) and silent == []
    wanted = [] if lowered is None else [f"tolerates {lowered} instead of 2"]
    assert len(warnings) == len(wanted) and all(part in text for part, text in zip(wanted, warnings, strict=True))


def test_entries_that_are_not_exchanged_do_not_change() -> None:
    updates, kept = updates_of(3), torch.tensor([1.0, 2.0])
    federation: Any = SimpleNamespace(buffer_names=frozenset({"mean", "count"}))
    models = Robust().aggregate(federation, updates, {}, {"global": {"norm": kept, **draw_state(9)}})
    assert torch.equal(models["global"]["norm"], kept)
    assert list(models["global"]) == ["norm", *draw_state(9)]
    assert np.array_equal(models["global"]["weight"].numpy(), np.median(columns(updates, "weight"), axis=0))


def test_there_is_no_state_to_restore(tmp_path: Path) -> None:
    callback = Robust("multi_krum")
    before, _, _ = play(updates_of(6), callback)
    write_state(tmp_path / "state", callback.state_dict())
    fresh = Robust("multi_krum")
    fresh.load_state_dict(read_state(tmp_path / "state"))
    after, _, _ = play(updates_of(6), fresh)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"trim": 0.5}, "callbacks.robust.trim=0.5: "),
        ({"trim": -0.1}, "callbacks.robust.trim=-0.1: "),
        ({"byzantine": -1}, "callbacks.robust.byzantine=-1: "),
        ({"rule": "mean"}, "callbacks.robust.rule=mean: must be one of median, trimmed_mean, krum, multi_krum"),
    ],
)
def test_values_out_of_bounds_are_refused(options: dict, wanted: str) -> None:
    with pytest.raises(FedReIDError) as caught:
        callback_factory({"backbone_sync": {}, "robust": options})
    assert str(caught.value).startswith(wanted)


@pytest.mark.parametrize(
    ("clients", "drawn", "byzantine", "enough"),
    [
        (9, None, 3, True),
        (9, None, 4, False),
        (9, 5, 1, True),
        (9, 4, 1, False),
        (3, None, 0, True),
        (2, None, 0, False),
    ],
)
def test_krum_needs_enough_clients_in_a_round(clients: int, drawn: int | None, byzantine: int, enough: bool) -> None:
    data: Any = SimpleNamespace(clients={str(number): None for number in range(clients)})
    config = compose(["exp=krum"])
    config.clients_per_round = drawn
    for rule in RULES:
        callback = Robust(rule, byzantine=byzantine)
        if enough or "krum" not in rule:
            callback.check(config, data)
        else:
            with pytest.raises(FedReIDError, match=f"needs {2 * byzantine + 3} clients in a round, but a round has"):
                callback.check(config, data)


def run_one_round(exp: str, root: Path, folder: Path) -> FederationLoop:
    words = ["rounds=1", "trainer.accelerator=cpu", *(["callbacks.robust.byzantine=0"] if "krum" in exp else [])]
    return train(compose([f"exp={exp}", *support.quick(root, folder, *words)]), folder)


@pytest.fixture(scope="module")
def real_updates(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[ClientUpdate]:
    """Returns the updates of the three tiny clients in the first round, equal in every experiment with this seed."""
    engine: Any = run_one_round("fedpav", tiny_root, tmp_path_factory.mktemp("run")).engine
    worker = engine.worker
    jobs = [support.fit_job(1, client, worker.initial) for client in support.TINY]
    return [worker.fit(job) for job in jobs]


@pytest.mark.parametrize("exp", RULES)
def test_a_round_of_the_experiment(exp: str, real_updates: list[ClientUpdate], tiny_root: Path, tmp_path: Path) -> None:
    loop = run_one_round(exp, tiny_root, tmp_path)
    model = loop.context.models["global"]
    if exp == "krum":
        names = [name for name in model if name not in loop.context.buffer_names]
        matches = [all(torch.equal(u.backbone[name], model[name]) for name in names) for u in real_updates]
        assert sorted(matches) == [False, False, True]
        assert list(loop.context.weights.values()) == [float(match) for match in matches]
        return
    rule = np.median if exp == "median" else np.mean  # a fifth of three clients rounds down to zero
    buffers = loop.context.buffer_names
    for name, value in model.items():
        if value.is_floating_point():
            wanted = (np.median if name in buffers else rule)(columns(real_updates, name), axis=0)
            np.testing.assert_allclose(value.numpy(), wanted, rtol=1e-4, atol=1e-5, err_msg=name)
