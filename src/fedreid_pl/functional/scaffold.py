"""SCAFFOLD's control variates.

Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", ICML 2020, Algorithm 1 with
option II.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor


def control_change(start: Tensor, end: Tensor, control: Tensor, distance: float) -> Tensor:
    """Returns `c_k+ - c_k = (w^t - w_k) / distance - c`: the mean local gradient minus the server's control variate.

    Args:
        start, end: w^t and w_k, of one shape and dtype.
        control: the server's c for the tensor.
        distance: the distance that a gradient of 1 in every step would have moved the weight
            (`local_steps.displacement`): K * lr without momentum. With 0, for a weight that is not trained, the change
            is zero.

    >>> control_change(torch.tensor([1.0]), torch.tensor([0.25]), torch.tensor([2.0]), 0.25)  # a mean gradient of 3
    tensor([1.])
    """
    return (start - end).div_(distance).sub_(control) if distance else torch.zeros_like(start)


def move_control(
    control: Mapping[str, Tensor], changes: Iterable[Mapping[str, Tensor]], clients: int
) -> dict[str, Tensor]:
    """Returns `c + 1/N * sum_k (c_k+ - c_k)`; the sum is over the participants, and N is the number of all clients.

    Args:
        control: c by name.
        changes: changes `c_k+ - c_k` of each participant by name; a missing name counts as zero.
        clients: N.

    >>> move_control({"w": torch.zeros(1)}, [{"w": torch.ones(1)}, {"w": torch.ones(1)}], 4)
    {'w': tensor([0.5000])}
    """
    total = {name: torch.zeros_like(value) for name, value in control.items()}
    for change in changes:
        for name, value in change.items():
            total[name].add_(value)
    return {name: total[name].div_(clients).add_(value) for name, value in control.items()}
