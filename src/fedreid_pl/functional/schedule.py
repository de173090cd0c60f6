"""Learning-rate factors as functions of the epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol


class Rates(Protocol):
    """The settings of a schedule, with the fields of `OptimConfig`."""

    schedule: str
    step: int
    gamma: float
    warmup: int
    scope: str
    milestones: list[int]


def step_factor(epoch: int, step: int, gamma: float) -> float:
    """Returns `gamma ** (epoch // step)`, the step schedule of the paper (40, 0.1); with `step=0` it never decays.

    Args:
        epoch: epochs trained before this one, counted from 0.

    >>> [step_factor(epoch, 40, 0.1) for epoch in (0, 39, 40)]
    [1.0, 1.0, 0.1]
    """
    return gamma ** (epoch // step) if step else 1.0


def milestone_factor(epoch: int, milestones: Sequence[int], gamma: float) -> float:
    """Returns `gamma` to the power of the number of milestones that have passed.

    Args:
        epoch: epochs trained before this one, counted from 0.
        milestones: numbers of epochs after which the learning rate is multiplied by `gamma`.
        gamma: factor at each milestone.

    >>> [milestone_factor(epoch, (20, 30), 0.5) for epoch in (0, 19, 20, 29, 30)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """
    return gamma ** sum(epoch >= stone for stone in milestones)


def warmup_factor(epoch: int, warmup: int) -> float:
    """Returns `(epoch + 1) / warmup` in the first `warmup` epochs and 1 afterwards.

    The linear warm-up of Luo et al. (CVPRW 2019, Eq. 1): the factor is `1 / warmup` in the first epoch and 1 in the
    last epoch of the warm-up. `warmup=0` and `warmup=1` are therefore equal.

    >>> [warmup_factor(epoch, 4) for epoch in range(6)]
    [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    """
    return (epoch + 1) / warmup if epoch < warmup else 1.0


def cosine_factor(epoch: int, total: int) -> float:
    """Returns `(1 + cos(pi * epoch / total)) / 2`, and 0 from epoch `total` on.

    Loshchilov and Hutter (ICLR 2017, Eq. 5) without restarts. The factor is 1 in the first of `total` epochs and would
    reach 0 in the epoch after the last one.

    >>> [round(cosine_factor(epoch, 4), 2) for epoch in range(5)]
    [1.0, 0.85, 0.5, 0.15, 0.0]
    """
    return (1.0 + math.cos(math.pi * epoch / total)) / 2.0 if epoch < total else 0.0


def rate_factor(
    epoch: int, schedule: str, step: int, gamma: float, warmup: int, total: int, milestones: Sequence[int] = ()
) -> float:
    """Returns the factor of all learning rates in an epoch.

    The constant schedule stays at 1 after the warm-up. The step schedule counts epochs from the beginning, warm-up
    included. The cosine schedule begins after the warm-up and ends with the training.

    Args:
        epoch: epochs trained before this one, counted from 0.
        schedule: `constant`, `step` or `cosine`.
        step, gamma: arguments of `step_factor`; only the step schedule uses them.
        warmup: epochs of `warmup_factor`.
        total: epochs of the whole training; only the cosine schedule uses it.
        milestones: argument of `milestone_factor`; if there are any, it replaces `step_factor`.

    Raises:
        ValueError: if `schedule` is none of these.

    >>> [rate_factor(epoch, "step", 2, 0.5, 2, 6) for epoch in range(6)]
    [0.5, 1.0, 0.5, 0.5, 0.25, 0.25]
    """
    if schedule not in ("constant", "step", "cosine"):
        raise ValueError(f"schedule must be constant, step or cosine, got {schedule!r}")
    rise = warmup_factor(epoch, warmup)
    if schedule == "constant":
        return rise
    if schedule == "step":
        return rise * (milestone_factor(epoch, milestones, gamma) if milestones else step_factor(epoch, step, gamma))
    return rise if epoch < warmup else cosine_factor(epoch - warmup, total - warmup)


def run_factors(optim: Rates, rounds: int, epochs: int) -> list[float]:
    """Returns `rate_factor` of every epoch of a run with `rounds` rounds of `epochs` epochs, in order.

    With `optim.scope="round"` the schedule starts again in every round.
    """
    total = rounds * epochs if optim.scope == "run" else epochs
    options = (optim.schedule, optim.step, optim.gamma, optim.warmup, total, optim.milestones)
    return [rate_factor(epoch % total, *options) for epoch in range(rounds * epochs)]


def frozen_share(factors: Sequence[float], least: float = 1e-3) -> float:
    """Returns the share of epochs whose factor is below `least`: in these epochs training hardly changes the weights.

    >>> frozen_share([step_factor(epoch, 40, 0.1) for epoch in range(160)])
    0.0
    >>> frozen_share([step_factor(epoch, 40, 0.1) for epoch in range(320)])
    0.5
    """
    return sum(factor < least for factor in factors) / len(factors)
