"""A client half reads learning rates, step counts and the loss scale from torch's SGD and GradScaler."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from fedreid_pl.federation.client.local_steps import LocalSteps, gradient_scale


def trainer_with(scaler: Any = None) -> Any:
    plugin = SimpleNamespace() if scaler is None else SimpleNamespace(scaler=scaler)
    return SimpleNamespace(precision_plugin=plugin)


def test_every_parameter_has_the_rates_of_its_group() -> None:
    one, other, unknown = (nn.Parameter(torch.zeros(2)) for _ in range(3))
    groups = [{"params": [one], "lr": 0.1, "momentum": 0.5}, {"params": [other], "lr": 1.0}]
    optimizer, steps = torch.optim.SGD(groups), LocalSteps()
    for factor in (1.0, 1.0, 0.1):
        optimizer.param_groups[0]["lr"] = 0.1 * factor
        optimizer.param_groups[1]["lr"] = 1.0 * factor
        steps.before_step(trainer_with(), optimizer)
        one.grad = other.grad = torch.ones(2)
        optimizer.step()
        steps.after_step(trainer_with())
    assert steps.of(one) == ([0.1, 0.1, pytest.approx(0.01)], 0.5, False)
    assert steps.of(other) == ([1.0, 1.0, 0.1], 0.0, False)
    assert steps.of(unknown) == ([], 0.0, False) and steps.displacement(unknown) == 0.0
    for parameter in (one, other):
        assert parameter.tolist() == pytest.approx([-steps.displacement(parameter)] * 2, rel=1e-6)


@pytest.mark.parametrize("fused", [True, False])
def test_a_skipped_step_does_not_count(fused: bool) -> None:
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=16.0, growth_interval=2)
    trainer, steps, scales = trainer_with(scaler), LocalSteps(), []
    for gradient in (1.0, 1.0, float("inf"), 1.0, 1.0, 1.0):
        weight.grad = scaler.scale(torch.tensor([gradient]))
        scales.append((scaler.get_scale(), gradient_scale(trainer, optimizer)))
        steps.before_step(trainer, optimizer)
        scaler.step(optimizer)
        scaler.update()
        steps.after_step(trainer)
    assert [scale for scale, _ in scales] == [16, 16, 32, 16, 16, 32], "the scale grows and falls"
    assert [scale for _, scale in scales] == [scale if fused else 1.0 for scale, _ in scales]
    assert steps.of(weight) == ([0.1] * 5, 0.9, False)
    assert steps.displacement(weight) == pytest.approx(-weight.item(), rel=1e-5)


def test_without_a_loss_scale_gradients_are_unscaled() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1, fused=True)
    assert gradient_scale(trainer_with(), optimizer) == 1.0
    assert gradient_scale(SimpleNamespace(precision_plugin=SimpleNamespace(scaler=None)), optimizer) == 1.0  # type: ignore[arg-type]
