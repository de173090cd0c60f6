"""The displacement of local SGD compared with torch's SGD, and effective steps with FedNova's vector."""

from __future__ import annotations

import pytest
import torch

from fedreid_pl.functional.local_steps import displacement, effective_steps

RATES = [[0.1], [0.1] * 7, [0.1, 0.2, 0.3, 0.3, 0.03], [0.0, 0.0, 0.1], []]


@pytest.mark.parametrize(
    ("momentum", "nesterov"), [(0.0, False), (0.5, False), (0.9, False), (0.999, False), (0.5, True), (0.9, True)]
)
@pytest.mark.parametrize("rates", RATES)
def test_the_displacement_is_that_of_torch_sgd_under_a_gradient_of_one(
    rates: list[float], momentum: float, nesterov: bool
) -> None:
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = torch.optim.SGD([weight], lr=1.0, momentum=momentum, nesterov=nesterov)
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert displacement(rates, momentum, nesterov) == pytest.approx(-weight.item(), rel=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("steps", [1, 2, 10, 100])
def test_effective_steps_are_the_norm_of_the_papers_vector(steps: int, momentum: float) -> None:
    vector = [(1 - momentum ** (steps - i)) / (1 - momentum) for i in range(steps)]
    assert effective_steps([0.05] * steps, momentum) == pytest.approx(sum(vector), rel=1e-12)
    closed = (steps - momentum * (1 - momentum**steps) / (1 - momentum)) / (1 - momentum)
    assert effective_steps([0.05] * steps, momentum) == pytest.approx(closed, rel=1e-12)


def test_without_momentum_steps_are_counted() -> None:
    for steps in (0, 1, 31):
        assert effective_steps([0.1] * steps) == steps


def test_the_scale_of_the_rate_does_not_matter() -> None:
    rates = [0.4, 0.2, 0.2, 0.1]
    wanted = effective_steps(rates, 0.9)
    assert effective_steps([1000 * rate for rate in rates], 0.9) == pytest.approx(wanted, rel=1e-12)
    assert effective_steps(rates) == 1 + 0.5 + 0.5 + 0.25
    assert wanted == pytest.approx(1 + 0.5 * 1.9 + 0.5 * 2.71 + 0.25 * 3.439)


def test_a_rate_of_zero_gives_no_displacement() -> None:
    assert effective_steps([0.0, 0.0]) == 0
    assert effective_steps([0.0, 0.1, 0.1]) == 2
    assert effective_steps([0.1, 0.0, 0.1]) == 2
