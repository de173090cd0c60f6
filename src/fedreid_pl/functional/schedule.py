"""Learning-rate factors as functions of the epoch."""

from __future__ import annotations


def step_factor(epoch: int, step: int, gamma: float) -> float:
    """`gamma ** (epoch // step)`, the paper's step schedule (40, 0.1); `step=0` never decays.

    Args:
        epoch: epochs trained before this one, counted from 0.

    >>> [step_factor(epoch, 40, 0.1) for epoch in (0, 39, 40)]
    [1.0, 1.0, 0.1]
    """
    return gamma ** (epoch // step) if step else 1.0
