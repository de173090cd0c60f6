"""Principal components: the plane in which features spread most."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def principal_components(features: Tensor, count: int = 2) -> tuple[Tensor, Tensor]:
    """Returns the coordinates of features along their first principal axes, and the share of variance of each axis.

    The sign of an axis is arbitrary; it is chosen so that the entry with the largest magnitude is positive.

    Args:
        features: `[N, D]` floating point, N at least 1.
        count: number of axes. If the features span fewer dimensions, the remaining coordinates are 0.

    Returns:
        Coordinates `[N, count]` float64 around the mean, and the share of the variance along each axis `[count]`.

    Raises:
        ValueError: if features are not `[N, D]` or not finite.

    >>> line = torch.tensor([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]])
    >>> coordinates, share = principal_components(line)
    >>> coordinates[:, 0].round().tolist(), share.round(decimals=6).tolist()
    ([-5.0, 0.0, 5.0], [1.0, 0.0])
    """
    if features.dim() != 2 or len(features) == 0 or not bool(torch.isfinite(features).all()):
        raise ValueError(f"features must be [N, D] and finite, got {list(features.shape)}")
    centred = features.double() - features.double().mean(0)
    _, lengths, axes = torch.linalg.svd(centred, full_matrices=False)
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    axes = axes * torch.where(largest < 0, -1.0, 1.0)
    coordinates, share = centred.new_zeros(len(features), count), centred.new_zeros(count)
    found = min(count, len(axes))
    coordinates[:, :found] = centred @ axes[:found].T
    if total := float(lengths.square().sum()):
        share[:found] = lengths[:found].square() / total
    return coordinates, share
