"""The IDE baseline: trunk, global average pooling and bottleneck, and the classifier that stays at the client."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedreid_pl.models.batch_dropout import BatchDropout
from fedreid_pl.models.pooling import PooledTrunk


class IDEBackbone(PooledTrunk):
    """The exchanged part of the model: trunk -> global pooling -> linear -> BatchNorm -> dropout.

    The ID-discriminative embedding of Zheng et al. (2016) with the bottleneck that FedReID uses (paper,
    Section 4.1). The output of the bottleneck is the feature that tests compare.

    Args:
        trunk: maps `[B, 3, H, W]` to `[B, C, h, w]` and has an attribute `out_channels`.
        feature_dim: size of the feature, 512 in the paper.
        dropout: probability, 0.5 in the paper; used in training mode only.
        pooling: `auto` or `avg` (the paper), or `gem`.

    Attributes:
        head_bias: whether the classifier over the feature has a bias.

    >>> from fedreid_pl.models.trunks import build_trunk
    >>> backbone = IDEBackbone(build_trunk("small")).eval()
    >>> backbone(torch.zeros(2, 3, 64, 32)).shape
    torch.Size([2, 512])
    """

    head_bias = True

    def __init__(self, trunk: nn.Module, feature_dim: int = 512, dropout: float = 0.5, pooling: str = "auto") -> None:
        super().__init__(trunk, pooling)
        self.feature_dim = feature_dim
        linear = nn.Linear(trunk.out_channels, feature_dim)  # type: ignore[arg-type]
        norm = nn.BatchNorm1d(feature_dim)
        nn.init.kaiming_normal_(linear.weight, mode="fan_out")
        nn.init.zeros_(linear.bias)
        nn.init.normal_(norm.weight, 1.0, 0.02)
        self.bottleneck = nn.Sequential(linear, norm, BatchDropout(dropout))

    def forward(self, images: Tensor) -> Tensor:
        """Returns the features `[B, feature_dim]` of normalised images `[B, 3, H, W]`."""
        return self.bottleneck(self.pooled(images))

    def embeddings(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (metric features, features), both `[B, feature_dim]`, of normalised images `[B, 3, H, W]`.

        The metric features are the output of the linear layer. As in the BNNeck, they are the values before the
        BatchNorm. A loss on them trains the linear layer too, which a loss on the pooled feature would not do. A loss
        on features after dropout would compare two random masks.
        """
        linear, norm, dropout = self.bottleneck
        metric = linear(self.pooled(images))
        return metric, dropout(norm(metric))


def build_head(
    feature_dim: int, identities: int, generator: torch.Generator | None = None, bias: bool = True
) -> nn.Linear:
    """Returns the classifier over a client's own identities, `[B, feature_dim] -> [B, identities]`.

    Weights are drawn from N(0, 0.001) with `generator`. The bias, if there is one, is zero. The classifier never leaves
    its client.
    """
    head = nn.Linear(feature_dim, identities, bias)
    with torch.no_grad():
        head.weight.normal_(0.0, 0.001, generator=generator)
        if bias:
            head.bias.zero_()
    return head
