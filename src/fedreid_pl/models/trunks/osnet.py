"""OSNet and OSNet-AIN, lightweight networks for person re-identification."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from fedreid_pl.models.trunks.base import Trunk, refuse_last_stride

WIDTHS = {"x1_0": 64, "x0_75": 48, "x0_5": 32, "x0_25": 16}
"""Channels of the stem by the width in the name."""

FEATURE = 512
"""Size of OSNet's own feature, the same for all widths."""

STREAMS = 4
"""Number of streams of a block; stream t has a receptive field of (2 t + 1) x (2 t + 1) positions."""


class Plan(NamedTuple):
    """The architecture of a variant of OSNet.

    Args:
        stem_instance_norm: use instance normalisation instead of BatchNorm in the stem.
        blocks: kinds of the two blocks in each of the three stages. `out` has instance normalisation after the addition
            of the shortcut. `in` has instance normalisation within the residual instead of BatchNorm. `plain` has none.
        lists: use the names of the second version of the original code, which has the streams in a list and the layers
            between stages as separate modules.
    """

    stem_instance_norm: bool
    blocks: tuple[tuple[str, str], ...]
    lists: bool


PLANS = {
    "osnet": Plan(False, (("plain", "plain"),) * 3, False),
    "osnet_ibn": Plan(True, (("out", "out"), ("plain", "plain"), ("plain", "plain")), False),
    "osnet_ain": Plan(True, (("in", "in"), ("plain", "in"), ("in", "plain")), True),
}

NAMES = (
    *(f"osnet_{width}" for width in WIDTHS),
    "osnet_ibn_x1_0",
    *(f"osnet_ain_{width}" for width in WIDTHS),
)


class OSNetTrunk(Trunk):
    """OSNet without its classifier: `[B, 3, H, W]` -> `[B, C, H/16, W/16]`, and 512 values after pooling (`finish`).

    Zhou et al., "Omni-Scale Feature Learning for Person Re-Identification" (ICCV 2019), and "Learning Generalisable
    Omni-Scale Representations for Person Re-Identification" (TPAMI 2021) for OSNet-IBN and OSNet-AIN. The architecture
    search of the second paper found the positions of instance normalisation. Names in the state dict are those of the
    authors' code, torchreid.

    Args:
        name: one of `NAMES`, such as `osnet_x1_0` or `osnet_ain_x0_5`.
        last_stride: must be 2.
    """

    def __init__(self, name: str, last_stride: int = 2) -> None:
        super().__init__()
        refuse_last_stride(name, last_stride)
        variant, _, width = name.partition("_x")
        plan, stem = PLANS[variant], WIDTHS["x" + width]
        channels = (stem, 4 * stem, 6 * stem, 8 * stem)
        self.out_channels = FEATURE
        self.conv1 = _Conv(3, stem, 7, stride=2, instance_norm=plan.stem_instance_norm)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        for number, kinds in enumerate(plan.blocks):
            stage: list[nn.Module] = [
                _Block(channels[number + place], channels[number + 1], kind, plan.lists)
                for place, kind in enumerate(kinds)
            ]
            transition = _halved(channels[number + 1]) if number < 2 else None
            if transition is not None and not plan.lists:
                stage.append(transition)
            self.add_module(f"conv{number + 2}", nn.Sequential(*stage))
            if transition is not None and plan.lists:
                self.add_module(f"pool{number + 2}", transition)
        self.conv5 = _Conv(channels[3], channels[3], 1)
        self.fc = nn.Sequential(nn.Linear(channels[3], FEATURE), nn.BatchNorm1d(FEATURE), nn.ReLU())
        self._initialise()

    @property
    def stage_prefixes(self) -> tuple[tuple[str, ...], ...]:
        """Prefixes of the stem and of three stages, each with the layers that follow it."""
        return ("conv1",), ("conv2", "pool2"), ("conv3", "pool3"), ("conv4", "conv5")

    def forward(self, images: Tensor) -> Tensor:
        """Returns feature maps `[B, C, h, w]` of images `[B, 3, H, W]`."""
        maps = images
        for name, part in self.named_children():
            if name != "fc":
                maps = part(maps)
        return maps

    def residual_stages(self) -> tuple[nn.Module, ...]:
        """Returns `conv2`, `conv3` and `conv4`."""
        return tuple(module for name, module in self.named_children() if name in ("conv2", "conv3", "conv4"))

    def finish(self, pooled: Tensor) -> Tensor:
        """Applies OSNet's fully connected layer: `[B, C]` -> `[B, 512]`."""
        return self.fc(pooled)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.01)
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)


class _Conv(nn.Module):
    """Convolution, normalisation and, unless `linear`, ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        stride: int = 1,
        linear: bool = False,
        norm: bool = True,
        instance_norm: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
        if instance_norm:
            self.bn: nn.Module = nn.InstanceNorm2d(outputs, affine=True)
        else:
            self.bn = nn.BatchNorm2d(outputs) if norm else nn.Identity()
        self.linear = linear

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.bn(self.conv(maps))
        return maps if self.linear else F.relu(maps)


class _LiteConv(nn.Module):
    """A 3 x 3 convolution factored into one over channels and one over positions (the paper's Lite 3 x 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, maps: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv2(self.conv1(maps))))


class _Layers(nn.Module):
    """A stream with the parameter names of the second version of the original code."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, maps: Tensor) -> Tensor:
        return self.layers(maps)


class _Gate(nn.Module):
    """The unified aggregation gate: one weight for each channel, from the mean over positions; shared by streams."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 16, 1)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1)

    def forward(self, maps: Tensor) -> Tensor:
        weights = self.fc2(F.relu(self.fc1(maps.mean(dim=(2, 3), keepdim=True))))
        return maps * weights.sigmoid()


class _Block(nn.Module):
    """The omni-scale residual block (ICCV 2019, Figure 4): streams of 1 to 4 lite convolutions, gated and added."""

    def __init__(self, inputs: int, outputs: int, kind: str, lists: bool) -> None:
        super().__init__()
        middle = outputs // 4
        self.conv1 = _Conv(inputs, middle, 1)
        streams = [nn.Sequential(*(_LiteConv(middle) for _ in range(depth + 1))) for depth in range(STREAMS)]
        self.streams = ["conv2"] if lists else [f"conv2{letter}" for letter in "abcd"]
        if lists:
            self.conv2 = nn.ModuleList(_Layers(stream) for stream in streams)
        else:
            for name, stream in zip(self.streams, streams, strict=True):
                self.add_module(name, stream[0] if len(stream) == 1 else stream)
        self.gate = _Gate(middle)
        self.conv3 = _Conv(middle, outputs, 1, linear=True, norm=kind != "in")
        self.downsample = _Conv(inputs, outputs, 1, linear=True) if inputs != outputs else None
        self.IN = nn.InstanceNorm2d(outputs, affine=True) if kind in ("in", "out") else None
        self.kind = kind

    def forward(self, maps: Tensor) -> Tensor:
        reduced = self.conv1(maps)
        parts = self.conv2 if len(self.streams) == 1 else [getattr(self, name) for name in self.streams]
        residual = self.conv3(sum(self.gate(part(reduced)) for part in parts))
        if self.IN is not None and self.kind == "in":
            residual = self.IN(residual)
        added = residual + (maps if self.downsample is None else self.downsample(maps))
        if self.IN is not None and self.kind == "out":
            added = self.IN(added)
        return F.relu(added)


def _halved(channels: int) -> nn.Sequential:
    """The layers between two stages, which halve the resolution."""
    return nn.Sequential(_Conv(channels, channels, 1), nn.AvgPool2d(2, stride=2))
