"""Pooling of feature maps over positions, and the base class of backbones: trunk and pooling."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AveragePooling(nn.Module):
    """The mean over positions, `[B, C, h, w]` -> `[B, C]`.

    >>> AveragePooling()(torch.tensor([[[[1.0, 3.0]]]]))
    tensor([[2.]])
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Returns pooled features `[B, C]`."""
        return maps.mean(dim=(2, 3))


class GeMPooling(nn.Module):
    """Generalised-mean pooling, `[B, C, h, w]` -> `[B, C]`: `(mean(x^p))^(1/p)` over positions, with p trained.

    Radenovic et al., "Fine-tuning CNN Image Retrieval with No Human Annotation" (TPAMI 2018, Equation 3). p = 1 gives
    the mean; a large p approaches the maximum. Values below `least` count as `least`, because the pooling is defined
    for maps after a ReLU.

    Args:
        power: initial p; 3 in the paper and in fast-reid.
        least: smallest value.

    >>> GeMPooling(2.0)(torch.tensor([[[[3.0, 4.0]]]])) ** 2
    tensor([[12.5000]], grad_fn=<PowBackward0>)
    """

    def __init__(self, power: float = 3.0, least: float = 1e-6) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor([power]))
        self.least = least

    def forward(self, maps: Tensor) -> Tensor:
        """Returns pooled features `[B, C]`, at least float32, because powers exceed the range of half precision."""
        wide = maps if maps.dtype == torch.float64 else maps.float()
        return wide.clamp(min=self.least).pow(self.p).mean(dim=(2, 3)).pow(1.0 / self.p)


POOLINGS = {"auto": AveragePooling, "avg": AveragePooling, "gem": GeMPooling}
"""Allowed values of `model.pooling` and their layers."""


class PooledTrunk(nn.Module):
    """Trunk and pooling, the base class of all backbones.

    Args:
        trunk: maps `[B, 3, H, W]` to `[B, C, h, w]` and has an attribute `out_channels`; see `trunks.base.Trunk`.
        pooling: `auto`, `avg` or `gem`.
    """

    def __init__(self, trunk: nn.Module, pooling: str = "auto") -> None:
        super().__init__()
        self.trunk = trunk
        self.pooling = POOLINGS[pooling]()

    def pooled(self, images: Tensor) -> Tensor:
        """Returns pooled trunk features `[B, trunk.out_channels]` of normalised images `[B, 3, H, W]`."""
        pooled = self.pooling(self.trunk(images))
        finish = getattr(self.trunk, "finish", None)
        return pooled if finish is None else finish(pooled)
