"""FedNova's normalised averaging.

Wang et al., "Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization", NeurIPS 2020,
Section 4.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from fedreid_pl.functional.aggregation import normalize_weights


def step_sizes(weights: Mapping[str, float], steps: Mapping[str, float]) -> dict[str, float]:
    """Returns the factor of each client's change: `q_k = p_k * tau_eff / a_k` with `tau_eff = sum_k p_k a_k`.

    If all a_k are equal, the factors are the p_k. Otherwise their sum may differ from one.

    Args:
        weights: p_k by client; scaled to add up to one.
        steps: effective local steps a_k of the same clients.

    Raises:
        ValueError: if the weights cannot be normalised or an a_k is not a positive number.

    >>> step_sizes({"a": 0.5, "b": 0.5}, {"a": 1.0, "b": 3.0})  # tau_eff = 2
    {'a': 1.0, 'b': 0.3333333333333333}
    """
    shares = normalize_weights(weights)
    if shares is None:
        raise ValueError(f"weights {dict(weights)} have no positive finite sum")
    for client in shares:
        if not 0 < steps[client] < math.inf:
            raise ValueError(f"{client}: effective steps must be positive and finite, got {steps[client]}")
    mean = math.fsum(share * steps[client] for client, share in shares.items())
    return {client: share * (mean / steps[client]) for client, share in shares.items()}


def normalized_average(
    start: Mapping[str, Tensor],
    states: Iterable[tuple[str, Mapping[str, Tensor]]],
    weights: Mapping[str, float],
    steps: Mapping[str, float],
) -> dict[str, Tensor]:
    """Returns `w^{t+1} = w^t + tau_eff * sum_k p_k (w_k - w^t) / a_k` in one pass over the clients.

    The function holds three models in memory for any number of clients. The results have the dtypes of `start`;
    changes of half-precision tensors are summed in float32.

    Args:
        start: w^t by name, floating-point. Only tensors with these names are averaged.
        states: (client, state dict) pairs; every state dict has at least the names of `start`.
        weights, steps: p_k and a_k by client, as in `step_sizes`.

    Raises:
        ValueError: under the conditions of `step_sizes`.

    >>> one, other = torch.tensor([2.0]), torch.tensor([9.0])
    >>> normalized_average({"w": torch.zeros(1)}, [("a", {"w": one}), ("b", {"w": other})], {"a": 1, "b": 1},
    ...     {"a": 1.0, "b": 3.0})
    {'w': tensor([5.])}
    """
    sizes = step_sizes(weights, steps)
    halves = (torch.float16, torch.bfloat16)
    wide = {name: value.float() if value.dtype in halves else value for name, value in start.items()}
    change = {name: torch.zeros_like(value) for name, value in wide.items()}
    for client, state in states:
        for name, value in wide.items():
            change[name].add_(state[name] - value, alpha=sizes[client])
    return {name: change[name].add_(value).to(start[name].dtype) for name, value in wide.items()}
