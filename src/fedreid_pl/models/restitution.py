"""Style normalisation and restitution (SNR) after the residual stages of a trunk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

REDUCTION = 16
"""Factor by which the attention reduces the number of channels."""


class Parts(NamedTuple):
    """The maps `[B, C, h, w]` of a forward pass: normalised, plus the kept residual, plus the dropped residual."""

    normal: Tensor
    kept: Tensor
    dropped: Tensor


class Restitution(nn.Module):
    """Instance normalisation, followed by channel attention that restores a part of the removed information.

    Jin et al., "Style Normalization and Restitution for Generalizable Person Re-identification" (CVPR 2020). Maps F are
    split into the normalised maps `F~ = IN(F)` and the residual `R = F - F~`. The attention
    `a = sigmoid(W2 relu(W1 mean(R)))` of every channel keeps `a R` and drops `(1 - a) R`. The next stage gets
    `F~ + a R`.

    Args:
        channels: C.

    Attributes:
        watched: whether `parts` stores the maps of the last forward pass, for a loss.
        parts: the maps of the last forward pass; `None` before the first one.

    >>> Restitution(32)(torch.ones(2, 32, 4, 2)).shape
    torch.Size([2, 32, 4, 2])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // REDUCTION, 1)
        self.norm = nn.InstanceNorm2d(channels, affine=True)
        self.attention = nn.Sequential(
            nn.Conv2d(channels, inner, 1), nn.ReLU(inplace=True), nn.Conv2d(inner, channels, 1), nn.Sigmoid()
        )
        self.watched = False
        self.parts: Parts | None = None

    def forward(self, maps: Tensor) -> Tensor:
        """Returns maps `[B, C, h, w]` with the restituted residual."""
        normal = self.norm(maps)
        residual = maps - normal
        attention = self.attention(residual.mean(dim=(2, 3), keepdim=True))
        kept = normal + attention * residual
        if self.watched:
            self.parts = Parts(normal, kept, normal + (1 - attention) * residual)
        return kept

    def behind(self, stage: nn.Module, inputs: object, maps: Tensor) -> Tensor:
        """Forward hook that applies the restitution to the output of a stage."""
        return self(maps)


def restitute(trunk: nn.Module, stages: Sequence[nn.Module]) -> nn.ModuleList:
    """Adds a `Restitution` after each of the given stages of a trunk, and returns these layers in order.

    The state dict of the trunk does not change, so weights files still fit. A module that has both the trunk and the
    returned list as attributes can be copied as usual.

    Args:
        trunk: maps images `[B, 3, H, W]` to feature maps.
        stages: modules of the trunk, first to last.
    """
    channels: list[int] = []
    handles = [stage.register_forward_hook(lambda *parts: channels.append(parts[2].shape[1])) for stage in stages]
    mode = trunk.training
    with torch.no_grad():
        trunk.eval()(torch.zeros(1, 3, 64, 64))
    trunk.train(mode)
    for handle in handles:
        handle.remove()
    made = [Restitution(count) for count in channels]
    for stage, layer in zip(stages, made, strict=True):
        stage.register_forward_hook(layer.behind)
    return nn.ModuleList(made)
