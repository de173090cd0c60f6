"""ResNets of torchvision, and ResNet-IBN-a, which is derived from them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models import resnet

from fedreid_pl.models.trunks.base import Trunk

DEPTHS = ("resnet18", "resnet34", "resnet50", "resnet101")


class ResNetTrunk(Trunk):
    """torchvision's ResNet without its pooling and classifier: `[B, 3, H, W]` -> `[B, C, H/32, W/32]`.

    Args:
        name: `resnet18`, `resnet34`, `resnet50` or `resnet101`.
        last_stride: stride of the last stage, 2 (the paper's baseline) or 1 (twice the resolution).
    """

    def __init__(self, name: str, last_stride: int = 2) -> None:
        super().__init__()
        network = getattr(resnet, name)(weights=None)
        self.out_channels = network.fc.in_features
        del network.fc, network.avgpool
        for module in (network.layer4[0].conv1, network.layer4[0].conv2, network.layer4[0].downsample[0]):
            if module.stride == (2, 2):
                module.stride = (last_stride, last_stride)
        for key, module in network.named_children():
            self.add_module(key, module)

    @property
    def stage_prefixes(self) -> tuple[tuple[str, ...], ...]:
        """Prefixes of the stem and of four stages."""
        return ("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",)

    def forward(self, images: Tensor) -> Tensor:
        """Returns feature maps `[B, C, h, w]` of images `[B, 3, H, W]`."""
        maps = images
        for stage in self.children():
            maps = stage(maps)
        return maps

    def residual_stages(self) -> tuple[nn.Module, ...]:
        """Returns `layer1` to `layer4`."""
        return tuple(module for name, module in self.named_children() if name.startswith("layer"))


class ResNetIBNTrunk(ResNetTrunk):
    """ResNet-IBN-a: instance normalisation of half the channels after every block's first convolution.

    Pan et al., "Two at Once: Enhancing Learning and Generalization Capacities via IBN-Net" (ECCV 2018, Section 3.2,
    IBN-a). The blocks of the last stage have only BatchNorm. Names in the state dict are those of the authors' code
    (`layer1.0.bn1.IN.weight`), which torchreid and fast-reid use too.

    Args:
        name: `resnet18_ibn_a`, `resnet34_ibn_a`, `resnet50_ibn_a` or `resnet101_ibn_a`.
        last_stride: stride of the last stage, 2 or 1.
    """

    def __init__(self, name: str, last_stride: int = 2) -> None:
        super().__init__(name.removesuffix("_ibn_a"), last_stride)
        for name, block in self.named_modules():
            if isinstance(block, resnet.BasicBlock | resnet.Bottleneck) and not name.startswith("layer4."):
                block.bn1 = IBN(block.bn1.num_features)  # type: ignore[assignment, arg-type]


class IBN(nn.Module):
    """Instance normalisation of the first half of the channels and BatchNorm of the others, over `[B, C, h, w]`.

    Instance normalisation uses the statistics of each image, in training and in tests. Only BatchNorm has running
    statistics.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = channels // 2  # number of channels with instance normalisation
        self.IN = nn.InstanceNorm2d(self.first, affine=True)
        self.BN = nn.BatchNorm2d(channels - self.first)

    def forward(self, maps: Tensor) -> Tensor:
        """Returns normalised maps `[B, C, h, w]`."""
        return torch.cat([self.IN(maps[:, : self.first]), self.BN(maps[:, self.first :])], dim=1)
