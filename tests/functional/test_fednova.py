"""Normalised averaging compared with numpy in float64, special cases equal to FedPav, and the paper's example."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from fedreid_pl.functional.aggregation import weighted_average
from fedreid_pl.functional.fednova import normalized_average, step_sizes

WEIGHTS = {"a": 0.2, "b": 0.5, "c": 0.3}
STEPS = {"a": 3.0, "b": 40.5, "c": 11.0}


def draw(seed: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return {"w": torch.randn(2, 3, generator=draws).to(dtype), "b": torch.randn((), generator=draws).to(dtype)}


START = draw(0)
STATES = {client: draw(number) for number, client in enumerate("abc", 1)}


def by_numpy(states: Mapping[str, Mapping[str, Tensor]], weights: Mapping[str, float], name: str) -> np.ndarray:
    start, total = START[name].double().numpy(), 0.0
    for client, state in states.items():
        direction = (start - state[name].double().numpy()) / STEPS[client]
        total = total + weights[client] * direction
    return start - sum(weights[client] * STEPS[client] for client in states) * total


def test_equals_the_papers_update_in_float64() -> None:
    found = normalized_average(START, STATES.items(), WEIGHTS, STEPS)
    assert list(found) == list(START)
    for name, value in found.items():
        assert value.dtype == torch.float32
        np.testing.assert_allclose(value.numpy(), by_numpy(STATES, WEIGHTS, name), rtol=1e-5, atol=1e-5)


def test_by_hand() -> None:
    # p = 1/4, 3/4; a = 2, 10; tau_eff = 8: 1 + 8 * (1/4 * 4/2 + 3/4 * -5/10) = 2
    start = {"w": torch.tensor([1.0])}
    states = [("a", {"w": torch.tensor([5.0]), "unasked": torch.ones(9)}), ("b", {"w": torch.tensor([-4.0])})]
    found = normalized_average(start, states, {"a": 0.25, "b": 0.75}, {"a": 2.0, "b": 10.0})
    assert set(found) == {"w"} and found["w"].item() == pytest.approx(2.0)
    assert start["w"].item() == 1.0
    assert step_sizes({"a": 0.25, "b": 0.75}, {"a": 2.0, "b": 10.0}) == pytest.approx({"a": 1.0, "b": 0.6})


def test_equal_steps_give_fedpav() -> None:
    steps = dict.fromkeys(STEPS, 17.3)
    assert step_sizes(WEIGHTS, steps) == pytest.approx(WEIGHTS)
    found, wanted = (
        normalized_average(START, STATES.items(), WEIGHTS, steps),
        weighted_average(STATES.items(), WEIGHTS),
    )
    for name in START:
        torch.testing.assert_close(found[name], wanted[name])
    different = normalized_average(START, STATES.items(), WEIGHTS, STEPS)
    assert not torch.allclose(different["w"], wanted["w"], atol=0.1)


def test_one_client_gives_fedpav() -> None:
    found = normalized_average(START, [("b", STATES["b"])], {"b": 1.0}, STEPS)
    for name in START:
        torch.testing.assert_close(found[name], STATES["b"][name])


def test_order_and_scale_of_weights_steps_and_models_do_not_matter() -> None:
    wanted = normalized_average(START, STATES.items(), WEIGHTS, STEPS)
    others = [
        normalized_average(START, reversed(STATES.items()), WEIGHTS, STEPS),
        normalized_average(START, STATES.items(), {client: 70 * weight for client, weight in WEIGHTS.items()}, STEPS),
        normalized_average(START, STATES.items(), WEIGHTS, {client: step / 9 for client, step in STEPS.items()}),
    ]
    scaled = {client: {name: 8 * value for name, value in state.items()} for client, state in STATES.items()}
    eight = normalized_average({name: 8 * value for name, value in START.items()}, scaled.items(), WEIGHTS, STEPS)
    others.append({name: value / 8 for name, value in eight.items()})
    for other in others:
        for name, value in wanted.items():
            torch.testing.assert_close(other[name], value)


def test_half_precision_is_summed_in_single() -> None:
    count = 100
    start = {"w": torch.ones(3, dtype=torch.bfloat16)}
    end = {"w": torch.full((3,), 2.0, dtype=torch.bfloat16)}
    clients = [str(number) for number in range(count)]
    equal = dict.fromkeys(clients, 1.0)
    found = normalized_average(start, ((client, end) for client in clients), equal, equal)
    assert found["w"].dtype == torch.bfloat16 and torch.equal(found["w"], end["w"])


def test_it_finds_the_minimum_that_fedpav_misses() -> None:
    """Two quadratics, minima 0 and 1, one with ten times as many steps: the mean of the minima is 1/2."""
    minima, counts, rate = {"a": 0.0, "b": 1.0}, {"a": 2, "b": 20}, 5e-3
    half = {"a": 0.5, "b": 0.5}
    nova = pav = {"w": torch.zeros(1, dtype=torch.float64)}
    for _ in range(200):
        ends = []
        for model in (nova, pav):
            states = {}
            for client, minimum in minima.items():
                weight = model["w"].clone()
                for _ in range(counts[client]):
                    weight -= rate * (weight - minimum)
                states[client] = {"w": weight}
            ends.append(states)
        nova = normalized_average(
            nova, ends[0].items(), half, {client: float(count) for client, count in counts.items()}
        )
        pav = weighted_average(ends[1].items(), half)
    assert nova["w"].item() == pytest.approx(0.5, abs=0.02)
    assert pav["w"].item() == pytest.approx(20 / 22, abs=0.02)


@pytest.mark.parametrize("steps", [0.0, -1.0, math.nan, math.inf])
def test_impossible_steps_are_refused(steps: float) -> None:
    with pytest.raises(ValueError, match="b: effective steps must be positive"):
        step_sizes(WEIGHTS, {**STEPS, "b": steps})


def test_weights_without_a_sum_are_refused() -> None:
    with pytest.raises(ValueError, match="no positive finite sum"):
        step_sizes({"a": 0.0, "b": 0.0}, STEPS)
