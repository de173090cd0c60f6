"""Aggregation of client backbones."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor


def normalize_weights(values: Mapping[str, float]) -> dict[str, float] | None:
    """Returns `v_k / sum v`, or `None` if a value is negative or not finite, or if the sum is zero.

    >>> normalize_weights({"a": 1.0, "b": 3.0})
    {'a': 0.25, 'b': 0.75}
    >>> normalize_weights({"a": 0.0}) is None
    True
    """
    try:
        total = math.fsum(values.values()) if all(math.isfinite(value) for value in values.values()) else math.nan
    except OverflowError:  # a sum above 1.8e308
        return None
    if not total > 0 or any(value < 0 for value in values.values()):
        return None
    return {name: value / total for name, value in values.items()}


def normalize_within(
    weights: Mapping[str, float], groups: Mapping[str, str], sizes: Mapping[str, float]
) -> tuple[dict[str, float], list[str]]:
    """Returns weights that add up to one within every group. If there is only one group, its weights do not change.

    Args:
        weights: weight of each client. Either all clients have a weight or none has.
        groups: group of each client.
        sizes: size of each client. It replaces the weight in groups whose weights are all zero.

    Returns:
        The weights in the order of `groups`, and the groups whose clients were weighted by size.

    >>> normalize_within({"a": 0.125, "b": 0.375, "c": 0.5}, {"a": "x", "b": "x", "c": "y"}, {})
    ({'a': 0.25, 'b': 0.75, 'c': 1.0}, [])
    """
    if not weights or len(set(groups.values())) == 1:
        return dict(weights), []
    result: dict[str, float] = {}
    empty = []
    for group in dict.fromkeys(groups.values()):
        members = [client for client, name in groups.items() if name == group]
        shares = normalize_weights({client: weights[client] for client in members})
        if shares is None:
            empty.append(group)
            shares = normalize_weights({client: sizes[client] for client in members}) or {}
        result |= shares
    return {client: result[client] for client in groups}, empty


def weighted_average(
    states: Iterable[tuple[str, Mapping[str, Tensor]]],
    weights: Mapping[str, float],
    buffers: Collection[str] = (),
    buffers_from: str | None = None,
) -> dict[str, Tensor]:
    """Returns `sum_k p_k w_k` in one pass over the clients (FedPav, Algorithm 1; McMahan et al., AISTATS 2017).

    The function holds two backbones in memory for any number of clients: the sum and the backbone that is added.
    Floating-point tensors are averaged in their own dtype; half-precision tensors are summed in float32. Of integer
    tensors (the counters of BatchNorm) the result is the maximum.

    Args:
        states: (client, state dict) pairs with equal names, shapes and dtypes.
        weights: p_k by client; they should add up to one.
        buffers: names of tensors that are not parameters.
        buffers_from: client whose buffers are used instead of their average; `None` averages the buffers.

    Raises:
        ValueError: if there are no states, or no state belongs to the client `buffers_from`.
    """
    total: dict[str, Tensor] = {}
    dtypes: dict[str, torch.dtype] = {}
    found = buffers_from is None
    for client, state in states:
        first = not total
        found |= client == buffers_from
        for name, value in state.items():
            dtypes.setdefault(name, value.dtype)
            if buffers_from is not None and name in buffers:
                if client == buffers_from:
                    total[name] = value.clone()
                elif first:
                    total[name] = torch.zeros_like(value)
            elif not value.is_floating_point():
                total[name] = value.clone() if first else torch.maximum(total[name], value)
            else:
                wide = value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
                total[name] = wide * weights[client] if first else total[name].add_(wide, alpha=weights[client])
    if not total:
        raise ValueError("no states to average")
    if not found:
        raise ValueError(f"buffers_from={buffers_from}: there is no state of this client")
    return {name: value.to(dtypes[name]) for name, value in total.items()}
