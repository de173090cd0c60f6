"""Distance that local SGD moves a weight per unit of gradient: FedNova and SCAFFOLD divide by it."""

from __future__ import annotations

from collections.abc import Sequence


def displacement(rates: Sequence[float], momentum: float = 0.0, nesterov: bool = False) -> float:
    """Returns the distance that SGD moves a weight whose gradient is 1 in every step.

    The distance is `sum_t lr_t * b_t` with `b_t = rho * b_{t-1} + 1`. For a constant rate and no momentum it is
    K * lr, the divisor of SCAFFOLD's option II. The momentum buffer starts at zero and takes the whole gradient
    (torch's SGD without dampening). Nesterov's variant moves the weight by `lr_t * (1 + rho * b_t)` in a step.

    Args:
        rates: learning rate of each step, in order.
        momentum: rho.
        nesterov: `True` for Nesterov momentum.

    >>> displacement([0.5, 0.5, 0.5])
    1.5
    >>> displacement([1.0, 1.0, 1.0], momentum=0.5)  # 1 + 1.5 + 1.75
    4.25
    """
    total = buffer = 0.0
    for rate in rates:
        buffer = momentum * buffer + 1.0
        total += rate * (1.0 + momentum * buffer if nesterov else buffer)
    return total


def effective_steps(rates: Sequence[float], momentum: float = 0.0, nesterov: bool = False) -> float:
    """Returns a_k, the L1 norm of FedNova's vector a_i: the number of local steps, weighted by their effect.

    The weight of a step is the distance that its gradient moves the model. Wang et al., "Tackling the Objective
    Inconsistency Problem in Heterogeneous Federated Optimization", NeurIPS 2020, Section 4. For a constant rate a_k is
    `(tau - rho (1 - rho^tau) / (1 - rho)) / (1 - rho)`, which is tau without momentum. A changing rate counts relative
    to the first rate. The result is at least 1 if there is a step.

    Args:
        rates: learning rate of each step, in order. Leading zeros are ignored.
        momentum, nesterov: as in `displacement`.

    >>> effective_steps([0.1] * 7)
    7.0
    >>> effective_steps([0.5, 0.5, 0.25])  # the last step goes half as far
    2.5
    """
    moving = list(rates)
    while moving and moving[0] == 0:
        del moving[0]
    return displacement([rate / moving[0] for rate in moving], momentum, nesterov)
