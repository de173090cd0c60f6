"""The cosine distance that reweighting is based on, and weights from scores."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from fedreid_pl.functional.aggregation import normalize_weights


def cosine_distance(before: Tensor, after: Tensor) -> Tensor:
    """Mean over the batch of `1 - cos(before, after)` (TOMM 2023, Eq. 1), a float32 scalar in 0..2.

    Computed in float64 and exactly zero for equal inputs, so that a client that did not train weighs nothing.
    A pair of which one vector is zero counts as a right angle (1), a pair of zero vectors as equal (0).

    Args:
        before, after: `[B, C]` logits of the same images.

    Raises:
        ValueError: if the shapes differ or the batch is empty.

    >>> cosine_distance(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]]))
    tensor(1.)
    """
    if before.shape != after.shape or before.ndim != 2 or not len(before):
        raise ValueError(f"two equal [B, C] tensors wanted, got {tuple(before.shape)} and {tuple(after.shape)}")
    first, second = before.double(), after.double()
    norms = first.norm(dim=1) * second.norm(dim=1)
    cosine = (first * second).sum(1) / norms.clamp_min(torch.finfo(torch.float64).tiny)
    distance = (1 - cosine).clamp(0, 2)
    return torch.where((first == second).all(1), 0.0, distance).mean().float()


def client_weights(scores: Mapping[str, float], temperature: float | None = None) -> dict[str, float] | None:
    """Weights that add up to one: `s_k / sum s` (TOMM 2023, Eq. 2), or `softmax(s / temperature)`.

    The softmax of a subset is the softmax of all, taken of the subset and divided by its sum: where clusters of
    clients are normalised on their own afterwards, each has the softmax over its members.

    Args:
        scores: s_k by client; without a temperature they must not be negative.
        temperature: positive; a low one prefers the highest score, a high one makes the weights equal.

    Returns:
        `None` if there are no scores, one is not finite, or, without a temperature, they are all zero.

    >>> client_weights({"a": 1.0, "b": 3.0})
    {'a': 0.25, 'b': 0.75}
    >>> client_weights({"a": 0.0, "b": 0.0}, temperature=0.5)
    {'a': 0.5, 'b': 0.5}
    """
    if temperature is None:
        return normalize_weights(scores)
    if not scores or not all(math.isfinite(score) for score in scores.values()):
        return None
    highest = max(scores.values())
    return normalize_weights({client: math.exp((score - highest) / temperature) for client, score in scores.items()})


def mix_weights(weights: Mapping[str, float], others: Mapping[str, float], mix: float) -> dict[str, float]:
    """`mix * weights + (1 - mix) * others`, exactly `weights` at 1 and `others` at 0.

    >>> mix_weights({"a": 1.0, "b": 0.0}, {"a": 0.5, "b": 0.5}, mix=0.5)
    {'a': 0.75, 'b': 0.25}
    """
    return {client: mix * weight + (1 - mix) * others[client] for client, weight in weights.items()}


def clip_weights(weights: Mapping[str, float], clip: float) -> dict[str, float]:
    """Weights cut to between `1 / clip` and `clip` times the mean weight, then divided by their sum.

    No client then counts more than `clip ** 2` times as much as another.

    Args:
        weights: n weights that add up to one.
        clip: at least 1; 1 makes all weights equal.

    >>> clip_weights({"a": 0.96, "b": 0.04, "c": 0.0}, clip=2.0)
    {'a': 0.6666666666666666, 'b': 0.16666666666666666, 'c': 0.16666666666666666}
    """
    count = len(weights)
    cut = {client: min(max(count * weight, 1 / clip), clip) for client, weight in weights.items()}
    total = math.fsum(cut.values())
    return {client: value / total for client, value in cut.items()}
