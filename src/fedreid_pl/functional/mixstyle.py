"""Styles of feature maps: instance statistics, and MixStyle, which mixes the statistics of two images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Gather = Callable[[Tensor], Tensor]
"""Function that takes rows of this process's images `[B, ...]` and returns the rows of the whole batch."""


def instance_statistics(maps: Tensor, eps: float = 1e-6) -> tuple[Tensor, Tensor]:
    """Returns mean and deviation `sqrt(variance + eps)` over the positions of every image and channel.

    Args:
        maps: `[B, C, h, w]` float; half precision is computed in float32.
        eps: added to the population variance.

    Returns:
        Two `[B, C, 1, 1]` tensors, at least float32.

    >>> mean, deviation = instance_statistics(torch.tensor([[[[1.0, 3.0]]]]), eps=0.0)
    >>> float(mean), float(deviation)
    (2.0, 1.0)
    """
    wide = maps.to(torch.promote_types(maps.dtype, torch.float32))
    variance, mean = torch.var_mean(wide, dim=(2, 3), correction=0, keepdim=True)
    return mean, (variance + eps).sqrt()


def mix_style(
    maps: Tensor, factors: Tensor, partners: Tensor, eps: float = 1e-6, gather: Gather = lambda rows: rows
) -> Tensor:
    """Returns feature maps whose style is a mixture of their own style and a partner's style (MixStyle).

    Zhou et al., "Domain Generalization with MixStyle", ICLR 2021, Eq. 4-6: with instance mean mu and deviation sigma
    of image x and of its partner x', `(x - mu(x)) / sigma(x) * (f sigma(x) + (1 - f) sigma(x')) + f mu(x) +
    (1 - f) mu(x')`. No gradient flows through mu and sigma.

    Args:
        maps: x, `[B, C, h, w]` float.
        factors: f of every image, `[B]` in 0..1.
        partners: `[B]` int64, the partner of every image as a row of the whole batch.
        eps: added to variances.
        gather: returns the statistics `[total, C, 1, 1]` of the whole batch, given those of `maps`. The default
            assumes that `maps` is the whole batch.

    Returns:
        `[B, C, h, w]` of the dtype of `maps`.

    >>> maps = torch.tensor([[[[1.0, 3.0]]], [[[10.0, 30.0]]]])
    >>> mix_style(maps, torch.tensor([0.5, 1.0]), torch.tensor([1, 0]), eps=0.0).flatten().tolist()
    [5.5, 16.5, 10.0, 30.0]
    """
    with torch.no_grad():
        mean, deviation = instance_statistics(maps, eps)
        share = factors.to(mean).view(-1, 1, 1, 1)
        new_mean = share * mean + (1 - share) * gather(mean)[partners]
        new_deviation = share * deviation + (1 - share) * gather(deviation)[partners]
        scale = new_deviation / deviation
    return torch.addcmul(new_mean, maps - mean, scale).to(maps.dtype)
