"""The cosine distance that reweighting is based on."""

from __future__ import annotations

import torch
from torch import Tensor


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
