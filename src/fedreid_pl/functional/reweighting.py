"""Reweighting of clients: the cosine distance of logits, and weights from scores."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from fedreid_pl.functional.aggregation import normalize_weights


def cosine_distance(before: Tensor, after: Tensor) -> Tensor:
    """Returns the mean over the batch of `1 - cos(before, after)` (TOMM 2023, Eq. 1), a float32 scalar in 0..2.

    The distance is computed in float64. Equal inputs have distance exactly 0, so that a client that did not train gets
    weight 0. The distance of a zero vector to a nonzero vector is 1, and that of two zero vectors is 0.

    Args:
        before, after: `[B, C]` logits of the same images.

    Raises:
        ValueError: if the shapes differ or the batch is empty.

    >>> cosine_distance(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]]))
    tensor(1.)
    """
    if before.shape != after.shape or before.ndim != 2 or not len(before):
        raise ValueError(f"expected two equal [B, C] tensors, got {tuple(before.shape)} and {tuple(after.shape)}")
    first, second = before.double(), after.double()
    norms = first.norm(dim=1) * second.norm(dim=1)
    cosine = (first * second).sum(1) / norms.clamp_min(torch.finfo(torch.float64).tiny)
    distance = (1 - cosine).clamp(0, 2)
    return torch.where((first == second).all(1), 0.0, distance).mean().float()


def client_weights(scores: Mapping[str, float], temperature: float | None = None) -> dict[str, float] | None:
    """Returns weights that add up to one: `s_k / sum s` (TOMM 2023, Eq. 2), or `softmax(s / temperature)`.

    If the softmax weights are normalised within clusters of clients afterwards, each cluster has the softmax over its
    own members.

    Args:
        scores: s_k by client; without a temperature they must not be negative.
        temperature: positive; a low one prefers the highest score, a high one makes the weights equal.

    Returns:
        The weights by client. `None` if there are no scores, a score is not finite, or (without a temperature) a score
        is negative or all scores are zero.

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
    """Returns `mix * weights + (1 - mix) * others`; exactly `weights` for `mix=1` and `others` for `mix=0`.

    >>> mix_weights({"a": 1.0, "b": 0.0}, {"a": 0.5, "b": 0.5}, mix=0.5)
    {'a': 0.75, 'b': 0.25}
    """
    return {client: mix * weight + (1 - mix) * others[client] for client, weight in weights.items()}


def clip_weights(weights: Mapping[str, float], clip: float) -> dict[str, float]:
    """Returns weights clipped to between `1 / clip` and `clip` times the mean weight and divided by their sum.

    The largest weight is then at most `clip ** 2` times the smallest one.

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
