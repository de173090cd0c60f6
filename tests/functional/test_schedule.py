"""The schedules compared with torch's schedulers."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch.optim import lr_scheduler as reference

from fedreid_pl.config import OptimConfig
from fedreid_pl.functional.schedule import (
    cosine_factor,
    frozen_share,
    milestone_factor,
    rate_factor,
    run_factors,
    step_factor,
    warmup_factor,
)

Make = Callable[[torch.optim.Optimizer], reference.LRScheduler]


def rates_of(make: Make, epochs: int) -> list[float]:
    """Returns the rates of an optimizer with rate 1 under one of torch's schedulers."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # SequentialLR's own calls cause this warning
        scheduler = make(optimizer)
        for _ in range(epochs):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    return rates


def linear(optimizer: torch.optim.Optimizer, warmup: int) -> reference.LRScheduler:
    return reference.LinearLR(optimizer, 1 / warmup, 1.0, total_iters=warmup - 1)


@pytest.mark.parametrize(("step", "gamma"), [(40, 0.1), (1, 0.5), (7, 0.9), (3, 1.0)])
def test_equals_torch_step_lr(step: int, gamma: float) -> None:
    wanted = rates_of(lambda optimizer: reference.StepLR(optimizer, step, gamma), 130)
    assert [step_factor(epoch, step, gamma) for epoch in range(130)] == pytest.approx(wanted, rel=1e-9)


def test_step_zero_never_decays() -> None:
    assert {step_factor(epoch, 0, 0.1) for epoch in (0, 1, 10**6)} == {1.0}


@pytest.mark.parametrize("warmup", [2, 5, 10])
def test_the_warm_up_equals_torch_linear_lr(warmup: int) -> None:
    wanted = rates_of(lambda optimizer: linear(optimizer, warmup), 15)
    assert [warmup_factor(epoch, warmup) for epoch in range(15)] == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("total", [1, 2, 7, 120])
def test_the_cosine_equals_torch_cosine_annealing_lr(total: int) -> None:
    wanted = rates_of(lambda optimizer: reference.CosineAnnealingLR(optimizer, total), total + 1)
    assert [cosine_factor(epoch, total) for epoch in range(total + 1)] == pytest.approx(wanted, abs=1e-9)
    assert {cosine_factor(epoch, total) for epoch in (total, total + 1, 10 * total)} == {0.0}


@pytest.mark.parametrize(("warmup", "step", "gamma"), [(2, 40, 0.1), (5, 3, 0.5), (10, 0, 0.1)])
def test_step_schedule_after_a_warm_up(warmup: int, step: int, gamma: float) -> None:
    def both(optimizer: torch.optim.Optimizer) -> reference.LRScheduler:
        steps = reference.StepLR(optimizer, step or 10**6, gamma)
        return reference.ChainedScheduler([linear(optimizer, warmup), steps])

    given = [rate_factor(epoch, "step", step, gamma, warmup, 0) for epoch in range(90)]
    assert given == pytest.approx(rates_of(both, 90), rel=1e-9)


@pytest.mark.parametrize(("warmup", "total"), [(2, 10), (5, 6), (10, 120)])
def test_cosine_schedule_after_a_warm_up(warmup: int, total: int) -> None:
    def both(optimizer: torch.optim.Optimizer) -> reference.LRScheduler:
        cosine = reference.CosineAnnealingLR(optimizer, total - warmup)
        return reference.SequentialLR(optimizer, [linear(optimizer, warmup), cosine], [warmup])

    given = [rate_factor(epoch, "cosine", 40, 0.1, warmup, total) for epoch in range(total)]
    assert given == pytest.approx(rates_of(both, total), abs=1e-9)
    assert max(given) == 1.0 and min(given) > 0


@pytest.mark.parametrize("warmup", [0, 1])
def test_a_warm_up_of_one_epoch_has_no_effect(warmup: int) -> None:
    for epoch in range(100):
        assert rate_factor(epoch, "step", 40, 0.1, warmup, 0) == step_factor(epoch, 40, 0.1)  # to the bit
    assert rate_factor(0, "cosine", 40, 0.1, warmup, 1) == 1.0


@pytest.mark.parametrize("total", [1, 3, 4])
def test_a_warm_up_longer_than_the_run(total: int) -> None:
    assert [rate_factor(epoch, "cosine", 40, 0.1, 4, total) for epoch in range(4)] == [0.25, 0.5, 0.75, 1.0]


def test_the_constant_schedule_equals_torch_constant_lr_after_the_warm_up() -> None:
    for warmup in (0, 2, 5):
        given = [rate_factor(epoch, "constant", 40, 0.1, warmup, 0) for epoch in range(300)]
        wanted = rates_of(lambda optimizer: linear(optimizer, warmup), 300) if warmup else [1.0] * 300  # noqa: B023
        assert given == pytest.approx(wanted, rel=1e-9)


def test_the_papers_step_schedule_freezes_training_and_the_default_does_not() -> None:
    factors = run_factors(OptimConfig(schedule="step"), rounds=300, epochs=1)
    assert factors[150] * 0.005 == pytest.approx(5e-6) and factors[299] * 0.005 == pytest.approx(5e-10)
    assert frozen_share(factors) == pytest.approx(140 / 300)  # rounds 161 to 300
    assert set(run_factors(OptimConfig(), rounds=300, epochs=1)) == {1.0}
    anew = run_factors(OptimConfig(schedule="step", step=2, scope="round"), rounds=3, epochs=5)
    assert anew == pytest.approx([1, 1, 0.1, 0.1, 0.01] * 3)
    assert frozen_share(run_factors(OptimConfig(schedule="cosine"), rounds=300, epochs=1)) < 0.05


def test_another_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match="'linear'"):
        rate_factor(0, "linear", 40, 0.1, 0, 10)


def test_milestones_are_torchs() -> None:
    wanted = rates_of(lambda optimizer: reference.MultiStepLR(optimizer, [3, 5, 6], 0.3), 9)
    assert [milestone_factor(epoch, (3, 5, 6), 0.3) for epoch in range(9)] == pytest.approx(wanted)
    assert [rate_factor(epoch, "step", 2, 0.3, 0, 9, (3, 5, 6)) for epoch in range(9)] == pytest.approx(wanted)
    optim = OptimConfig(schedule="step", gamma=0.3, milestones=[3, 5, 6])
    assert run_factors(optim, 9, 1) == pytest.approx(wanted)
    assert run_factors(OptimConfig(schedule="step", gamma=0.3, step=4), 9, 1)[4] == pytest.approx(0.3)
