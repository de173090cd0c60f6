"""Control variates compared with numpy and with the mean gradient, and the paper's example."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fedreid_pl.functional.aggregation import weighted_average
from fedreid_pl.functional.local_steps import displacement
from fedreid_pl.functional.scaffold import control_change, move_control


def draw(seed: int) -> Tensor:
    return torch.randn(3, 2, generator=torch.Generator().manual_seed(seed))


def test_the_change_equals_option_two_in_float64() -> None:
    start, end, control, own = (draw(seed) for seed in range(4))
    steps, rate = 7, 0.05
    before = start.clone(), end.clone(), control.clone()
    change = control_change(start, end, control, steps * rate)
    one, other, c, c_k = (value.double().numpy() for value in (start, end, control, own))
    new = c_k - c + (one - other) / (steps * rate)
    np.testing.assert_allclose((own + change).numpy(), new, rtol=1e-5, atol=1e-5)
    for value, kept in zip((start, end, control), before, strict=True):
        assert torch.equal(value, kept)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_corrected_turn_recovers_its_gradient(momentum: float) -> None:
    """If the gradient of every step is g, then c_k+ equals g for any c, c_k and rates, also with momentum."""
    gradient, control, own, start = draw(1), draw(2), draw(3), draw(4)
    weight, speed, rates = start.clone(), torch.zeros(3, 2), [0.1, 0.1, 0.05, 0.2]
    for rate in rates:
        speed = momentum * speed + gradient + control - own
        weight = weight - rate * speed
    change = control_change(start, weight, control, displacement(rates, momentum))
    torch.testing.assert_close(own + change, gradient, rtol=1e-4, atol=1e-4)


def test_an_untrained_weight_has_no_change() -> None:
    assert not control_change(draw(1), draw(1), draw(2), 0.0).any()


def test_the_server_adds_one_nth_of_every_change() -> None:
    control = {"w": draw(1), "b": draw(2)}
    changes = [{"w": draw(seed), "b": draw(10 + seed)} for seed in range(3, 6)]
    kept = {name: value.clone() for name, value in control.items()}
    found = move_control(control, changes, 5)
    for name in control:
        total = sum(change[name].double().numpy() for change in changes)
        np.testing.assert_allclose(found[name].numpy(), kept[name].double().numpy() + total / 5, rtol=1e-5, atol=1e-6)
        assert torch.equal(control[name], kept[name]), "the tensors sent to the clients do not change"
        torch.testing.assert_close(move_control(control, reversed(changes), 5)[name], found[name])
    only = move_control(control, [{"w": draw(3)}], 2)
    assert torch.equal(only["b"], control["b"])
    torch.testing.assert_close(only["w"], control["w"] + draw(3) / 2)


def test_from_zero_with_all_clients_c_is_the_mean_of_the_c_k() -> None:
    zero = {"w": torch.zeros(3, 2)}
    own = [{"w": draw(seed)} for seed in range(4)]
    found = move_control(zero, own, 4)["w"]  # c_k was zero, so the changes are the c_k
    torch.testing.assert_close(found, torch.stack([state["w"] for state in own]).mean(0))


def test_it_finds_the_minimum_that_fedpav_misses() -> None:
    """f = (w^2 + 4 (w - 1)^2) / 2 has its minimum at 0.8; many local steps of each client alone end elsewhere."""
    slopes, rate, steps = {"a": (1.0, 0.0), "b": (4.0, 1.0)}, 0.05, 20

    def run(corrected: bool) -> float:
        model = {"w": torch.zeros(1, dtype=torch.float64)}
        control = {"w": torch.zeros(1, dtype=torch.float64)}
        own = {client: torch.zeros(1, dtype=torch.float64) for client in slopes}
        for _ in range(60):
            ends, changes = {}, []
            for client, (slope, minimum) in slopes.items():
                weight = model["w"].clone()
                for _ in range(steps):
                    weight -= rate * (slope * (weight - minimum) + corrected * (control["w"] - own[client]))
                change = control_change(model["w"], weight, control["w"], displacement([rate] * steps))
                own[client] = own[client] + change
                changes.append({"w": change})
                ends[client] = {"w": weight}
            model = weighted_average(ends.items(), {"a": 0.5, "b": 0.5})
            control = move_control(control, changes, 2)
        return model["w"].item()

    assert run(corrected=True) == pytest.approx(0.8, abs=1e-4)
    assert abs(run(corrected=False) - 0.8) > 0.05
