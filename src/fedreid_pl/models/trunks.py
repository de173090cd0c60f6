"""Convolutional trunks: everything of a ReID backbone before the global average pooling."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torchvision.models import resnet
from torchvision.models.resnet import BasicBlock

from fedreid_pl.errors import FedReIDError, nearest


class SmallResNet(nn.Module):
    """A residual network of 78 thousand weights for 64 x 32 pictures (MiniReID), trainable from scratch.

    A 3 x 3 stem of stride 2 and three stages of one basic block each (He et al., CVPR 2016), every stage
    halving the resolution: `[B, 3, 64, 32]` float -> `[B, 64, 4, 2]` float with `last_stride=2`. The size is
    chosen so that thirty rounds of the whole benchmark take minutes on two CPU cores.

    Args:
        last_stride: stride of the last stage, 2 or 1 (1 keeps twice the resolution).
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

    def forward(self, images: Tensor) -> Tensor:
        """Feature maps `[B, C, h, w]` of images `[B, 3, H, W]`."""
        return self.stages(self.stem(images))


class ResNetTrunk(nn.Module):
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

    def forward(self, images: Tensor) -> Tensor:
        """Feature maps `[B, C, h, w]` of images `[B, 3, H, W]`."""
        maps = images
        for stage in self.children():
            maps = stage(maps)
        return maps


def _stage(inputs: int, outputs: int, stride: int) -> nn.Module:
    shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
    return BasicBlock(inputs, outputs, stride, shortcut)


TRUNKS: dict[str, Callable[[int], nn.Module]] = {
    "small": SmallResNet,
    **{name: partial(ResNetTrunk, name) for name in ("resnet18", "resnet34", "resnet50", "resnet101")},
}
"""What `model.name` may be: a function of the last stride."""


def build_trunk(name: str, last_stride: int = 2) -> nn.Module:
    """The trunk called `name`, randomly initialised; it has an attribute `out_channels`.

    Raises:
        FedReIDError: for an unknown name or a stride other than 1 and 2.
    """
    if name not in TRUNKS:
        raise FedReIDError(f"model.name={name}: no such backbone{nearest(name, list(TRUNKS))}")
    if last_stride not in (1, 2):
        raise FedReIDError(f"model.last_stride={last_stride}: must be 1 or 2")
    return TRUNKS[name](last_stride)
