"""Style normalisation and restitution (SNR) behind the residual stages of a trunk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

REDUCTION = 16
"""Of the channels within the attention."""


class Parts(NamedTuple):
    """The three maps `[B, C, h, w]` of one forward pass: normalised, with the kept and with the dropped residual."""

    normal: Tensor
    kept: Tensor
    dropped: Tensor


class Restitution(nn.Module):
    """Instance normalisation, and the part of what it took away that channel attention gives back.

    Jin et al., "Style Normalization and Restitution for Generalizable Person Re-identification" (CVPR 2020): of maps F
    the normalised `F~ = IN(F)` and the residual `R = F - F~`; the attention `a = sigmoid(W2 relu(W1 mean(R)))` of every
    channel keeps `a R` and drops `(1 - a) R`. The next stage gets `F~ + a R`.

    Args:
        channels: C.

    Attributes:
        watched: whether the parts of the last forward pass are kept in `parts`, for a loss.

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
        """Maps `[B, C, h, w]` with the restituted residual."""
        normal = self.norm(maps)
        residual = maps - normal
        attention = self.attention(residual.mean(dim=(2, 3), keepdim=True))
        kept = normal + attention * residual
        if self.watched:
            self.parts = Parts(normal, kept, normal + (1 - attention) * residual)
        return kept

    def behind(self, stage: nn.Module, inputs: object, maps: Tensor) -> Tensor:
        """A forward hook for the stage that this follows."""
        return self(maps)


def restitute(trunk: nn.Module, stages: Sequence[nn.Module]) -> nn.ModuleList:
    """Puts a `Restitution` behind each of the stages of a trunk, and returns them in order.

    The trunk's own state dict stays as it is, so that weights files still fit it; copies of whoever holds trunk and
    list have both.

    Args:
        trunk: maps images `[B, 3, H, W]` to feature maps.
        stages: modules of it, first to last.
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
