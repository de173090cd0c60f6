"""MobileNetV2 and ConvNeXt of torchvision."""

from __future__ import annotations

import re
from itertools import pairwise

from torch import Tensor, nn
from torchvision.models import convnext, mobilenetv2

from fedreid_pl.models.trunks.base import Trunk, refuse_last_stride

CONVNEXTS = ("convnext_tiny", "convnext_small", "convnext_base", "convnext_large")

HALVINGS = (0, 2, 4, 7, 14, 19)
"""Index of the first block of every stage of MobileNetV2 (the stem included), and the number of blocks."""

FLAT = {
    1: {"0": "0.0", "1": "0.1", "3": "1", "4": "2"},
    6: {"0": "0.0", "1": "0.1", "3": "1.0", "4": "1.1", "6": "2", "7": "3"},
}
"""Maps the index of a layer in a flat block to torchvision's name, for blocks with expansion 1 and 6."""


class MobileNetV2Trunk(Trunk):
    """torchvision's MobileNetV2 without its classifier: `[B, 3, H, W]` -> `[B, 1280, H/32, W/32]`.

    Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (CVPR 2018, Table 2). The trunk loads
    weights files of torchvision and files with the layers of a block in one flat list (`features.1.conv.3.weight`).

    Args:
        last_stride: stride of the last block that halves the resolution, 2 or 1.
    """

    def __init__(self, last_stride: int = 2) -> None:
        super().__init__()
        network = mobilenetv2.mobilenet_v2(weights=None)
        self.out_channels = network.last_channel
        self.features = network.features
        self.features[14].conv[1][0].stride = (last_stride, last_stride)

    @property
    def stage_prefixes(self) -> tuple[tuple[str, ...], ...]:
        """Prefixes of the stem and of four stages; a stage has all blocks of one resolution."""
        return tuple(tuple(f"features.{place}" for place in range(start, end)) for start, end in pairwise(HALVINGS))

    def forward(self, images: Tensor) -> Tensor:
        """Returns feature maps `[B, 1280, h, w]` of images `[B, 3, H, W]`."""
        return self.features(images)

    def adapted(self, tensors: dict[str, Tensor], source: str) -> tuple[dict[str, Tensor], list[str]]:
        """Returns the tensors with torchvision's names if the file has flat blocks, and the list of changes."""
        if not any(key.endswith("features.2.conv.7.weight") for key in tensors):
            return tensors, []
        notes = ["a block's layers in one flat list, renamed as in torchvision"]
        return {_nested(key): value for key, value in tensors.items()}, notes


class ConvNeXtTrunk(Trunk):
    """torchvision's ConvNeXt without its linear classifier: `[B, 3, H, W]` -> `[B, C, H/32, W/32]`.

    Liu et al., "A ConvNet for the 2020s" (CVPR 2022). The LayerNorm between pooling and classifier belongs to the
    trunk (`finish`). Stochastic depth is off, because its draws would depend on the number of processes.

    Args:
        name: `convnext_tiny`, `convnext_small`, `convnext_base` or `convnext_large`.
        last_stride: must be 2.
    """

    def __init__(self, name: str, last_stride: int = 2) -> None:
        super().__init__()
        refuse_last_stride(name, last_stride)
        network = getattr(convnext, name)(weights=None, stochastic_depth_prob=0.0)
        norm, _, linear = network.classifier
        self.out_channels = linear.in_features
        self.features = network.features
        self.classifier = nn.Sequential(norm)  # the attribute has torchvision's name

    @property
    def stage_prefixes(self) -> tuple[tuple[str, ...], ...]:
        """Prefixes of the stem and of four stages; a stage includes the layer before it that halves the resolution."""
        places = ((0,), (1,), (2, 3), (4, 5), (6, 7))
        return tuple(tuple(f"features.{place}" for place in stage) for stage in places)

    def forward(self, images: Tensor) -> Tensor:
        """Returns feature maps `[B, C, h, w]` of images `[B, 3, H, W]`."""
        return self.features(images)

    def finish(self, pooled: Tensor) -> Tensor:
        """Applies the LayerNorm to the pooled feature, `[B, C]` -> `[B, C]`."""
        return self.classifier(pooled[:, :, None, None]).flatten(1)


def _nested(key: str) -> str:
    """Returns torchvision's name of a tensor in a flat block."""
    found = re.fullmatch(r"(.*features\.(\d+)\.conv\.)(\d)(\..*)", key)
    if not found:
        return key
    begin, block, place, end = found.groups()
    return begin + FLAT[1 if block == "1" else 6].get(place, place) + end
