"""The small trunk, made for MiniReID."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from fedreid_pl.models.trunks.base import Trunk


class SmallResNet(Trunk):
    """A residual network of 78 thousand weights for 64 x 32 images (MiniReID), trainable from scratch.

    The network has a 3 x 3 stem of stride 2 and three stages of one basic block each (He et al., CVPR 2016). Every
    stage halves the resolution: `[B, 3, 64, 32]` float -> `[B, 64, 4, 2]` float with `last_stride=2`. It is so small
    that thirty rounds of the whole benchmark take minutes on two CPU cores.

    Args:
        last_stride: stride of the last stage, 2 or 1 (1 gives twice the resolution).
        width: channels of the first stage; the stages have `width, 2 * width, 4 * width`.
    """

    def __init__(self, last_stride: int = 2, width: int = 16) -> None:
        super().__init__()
        self.out_channels = 4 * width
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.stages = nn.Sequential(
            _stage(width, width, 2), _stage(width, 2 * width, 2), _stage(2 * width, 4 * width, last_stride)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @property
    def stage_prefixes(self) -> tuple[tuple[str, ...], ...]:
        """Prefixes of the stem and of three stages."""
        return ("stem",), ("stages.0",), ("stages.1",), ("stages.2",)

    def forward(self, images: Tensor) -> Tensor:
        """Returns feature maps `[B, C, h, w]` of images `[B, 3, H, W]`."""
        return self.stages(self.stem(images))

    def residual_stages(self) -> tuple[nn.Module, ...]:
        """Returns the three stages."""
        return tuple(self.stages)


def _stage(inputs: int, outputs: int, stride: int) -> nn.Module:
    shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
    return BasicBlock(inputs, outputs, stride, shortcut)
