"""The network that maps normalised images to the features that tests compare."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Embedder(nn.Module):
    """A backbone with the test-time steps: features of the mirrored image are added, and the sum is L2-normalised.

    Args:
        backbone: maps normalised images `[B, 3, H, W]` to features `[B, D]`.
        flip: add the features of the mirrored image, as tests do. This doubles the time.

    >>> import torch
    >>> from fedreid_pl.models.ide import IDEBackbone
    >>> from fedreid_pl.models.trunks import build_trunk
    >>> embedder = Embedder(IDEBackbone(build_trunk("small")).eval())
    >>> embedder(torch.zeros(2, 3, 64, 32)).shape
    torch.Size([2, 512])
    """

    def __init__(self, backbone: nn.Module, flip: bool = True) -> None:
        super().__init__()
        self.backbone, self.flip = backbone, flip

    def forward(self, images: Tensor) -> Tensor:
        """Returns L2-normalised features `[B, D]` float32 of normalised images `[B, 3, H, W]`."""
        features = self.backbone(images).float()
        if self.flip:
            features = features + self.backbone(images.flip(3)).float()
        return F.normalize(features, dim=1)


def embeddings_of(backbone: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Returns (embeddings `[B, D]`, features `[B, D]`) of normalised images `[B, 3, H, W]`, from one forward pass.

    Embeddings are the values before the BatchNorm of the neck; metric losses use them. The classifier and tests use the
    features. If the backbone has no method `embeddings`, both are its output.
    """
    if hasattr(backbone, "embeddings"):
        return backbone.embeddings(images)  # type: ignore[operator]
    features = backbone(images)
    return features, features
