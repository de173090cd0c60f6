"""The BNNeck: a BatchNorm between the feature for the triplet loss and the feature for the classifier."""

from __future__ import annotations

from torch import Tensor, nn

from fedreid_pl.models.pooling import PooledTrunk


class BNNeckBackbone(PooledTrunk):
    """The exchanged part of the model with a BNNeck: trunk -> global pooling -> BatchNorm without bias.

    Luo et al., "Bag of Tricks and a Strong Baseline for Deep Person Re-Identification" (CVPRW 2019, Section 3.5):
    metric losses use the feature before the BatchNorm; the classifier (without bias) and tests use the feature after
    it. The paper keeps the bias of the BatchNorm at zero. Here the BatchNorm has no bias, so that operations on weights
    (a server optimizer, noise, an average) cannot change it.

    The feature has the trunk's size; there is no linear layer and no dropout.

    Args:
        trunk: maps `[B, 3, H, W]` to `[B, C, h, w]` and has an attribute `out_channels`.
        pooling: `auto` or `avg`, or `gem`.

    Attributes:
        feature_dim: C.
        head_bias: whether the classifier over the feature has a bias.

    >>> import torch
    >>> from fedreid_pl.models.trunks import build_trunk
    >>> backbone = BNNeckBackbone(build_trunk("small")).eval()
    >>> backbone(torch.zeros(2, 3, 64, 32)).shape
    torch.Size([2, 64])
    """

    head_bias = False

    def __init__(self, trunk: nn.Module, pooling: str = "auto") -> None:
        super().__init__(trunk, pooling)
        self.feature_dim: int = trunk.out_channels  # type: ignore[assignment]
        self.bottleneck = nn.BatchNorm1d(self.feature_dim)
        self.bottleneck.register_parameter("bias", None)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the features `[B, C]` of normalised images `[B, 3, H, W]`."""
        return self.embeddings(images)[1]

    def embeddings(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (pooled trunk features `[B, C]` for a metric loss, features `[B, C]`) of normalised images."""
        pooled = self.pooled(images)
        return pooled, self.bottleneck(pooled)
