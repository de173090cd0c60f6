"""Learning-rate factors as functions of the epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol


class Rates(Protocol):
    """The settings of a schedule, as `OptimConfig` has them."""

    schedule: str
    step: int
    gamma: float
    warmup: int
    scope: str
    milestones: list[int]


def step_factor(epoch: int, step: int, gamma: float) -> float:
    """`gamma ** (epoch // step)`, the paper's step schedule (40, 0.1); `step=0` never decays.

    Args:
        epoch: epochs trained before this one, counted from 0.

    >>> [step_factor(epoch, 40, 0.1) for epoch in (0, 39, 40)]
    [1.0, 1.0, 0.1]
    """
    return gamma ** (epoch // step) if step else 1.0


def milestone_factor(epoch: int, milestones: Sequence[int], gamma: float) -> float:
    """`gamma` to the number of milestones that are passed: the rates fall after so many epochs each.

    Args:
        epoch: epochs trained before this one, counted from 0.

    >>> [milestone_factor(epoch, (20, 30), 0.5) for epoch in (0, 19, 20, 29, 30)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """
    return gamma ** sum(epoch >= stone for stone in milestones)


def warmup_factor(epoch: int, warmup: int) -> float:
    """`(epoch + 1) / warmup` in the first `warmup` epochs, 1 from then on.

    The linear warm-up of Luo et al. (CVPRW 2019, Eq. 1): the first epoch has `1 / warmup` of the rate, the last
    epoch of the warm-up has all of it, so that `warmup` 0 and 1 are the same.

    >>> [warmup_factor(epoch, 4) for epoch in range(6)]
    [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    """
    return (epoch + 1) / warmup if epoch < warmup else 1.0


def cosine_factor(epoch: int, total: int) -> float:
    """`(1 + cos(pi * epoch / total)) / 2`, and 0 from `total` on.

    Loshchilov and Hutter (ICLR 2017, Eq. 5) without restarts. The first of `total` epochs has the whole rate; zero
    would be reached by the one after the last.

    >>> [round(cosine_factor(epoch, 4), 2) for epoch in range(5)]
    [1.0, 0.85, 0.5, 0.15, 0.0]
    """
    return (1.0 + math.cos(math.pi * epoch / total)) / 2.0 if epoch < total else 0.0


def rate_factor(
    epoch: int, schedule: str, step: int, gamma: float, warmup: int, total: int, milestones: Sequence[int] = ()
) -> float:
    """The factor of all learning rates in an epoch.

    The constant schedule stays at 1 after the warm-up. The step schedule counts its epochs from the beginning,
    warm-up included; the cosine begins after the warm-up and spans the epochs that are left.

    Args:
        epoch: epochs trained before this one, counted from 0.
        schedule: `constant`, `step` or `cosine`.
        step, gamma: of `step_factor`; the step schedule alone uses them.
        warmup: epochs of `warmup_factor`.
        total: epochs of the whole training; only the cosine needs them.
        milestones: of `milestone_factor`, which takes the place of `step_factor` if there are any.

    Raises:
        ValueError: for another schedule.

    >>> [rate_factor(epoch, "step", 2, 0.5, 2, 6) for epoch in range(6)]
    [0.5, 1.0, 0.5, 0.5, 0.25, 0.25]
    """
    if schedule not in ("constant", "step", "cosine"):
        raise ValueError(f"no schedule is called {schedule!r}")
    rise = warmup_factor(epoch, warmup)
    if schedule == "constant":
        return rise
    if schedule == "step":
        return rise * (milestone_factor(epoch, milestones, gamma) if milestones else step_factor(epoch, step, gamma))
    return rise if epoch < warmup else cosine_factor(epoch - warmup, total - warmup)


def run_factors(optim: Rates, rounds: int, epochs: int) -> list[float]:
    """`rate_factor` of every epoch of a run of `rounds` with `epochs` each, in order.

    With `optim.scope="round"` the schedule begins anew in every round.
    """
    total = rounds * epochs if optim.scope == "run" else epochs
    options = (optim.schedule, optim.step, optim.gamma, optim.warmup, total, optim.milestones)
    return [rate_factor(epoch % total, *options) for epoch in range(rounds * epochs)]


def frozen_share(factors: Sequence[float], least: float = 1e-3) -> float:
    """Share of the epochs whose factor is below `least`: there training hardly moves the weights.

    >>> frozen_share([step_factor(epoch, 40, 0.1) for epoch in range(160)])
    0.0
    >>> frozen_share([step_factor(epoch, 40, 0.1) for epoch in range(320)])
    0.5
    """
    return sum(factor < least for factor in factors) / len(factors)
