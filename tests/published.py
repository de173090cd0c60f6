"""Published sizes of the backbones, and outputs of torchreid 0.2.5 with the weights of `filled`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

PUBLISHED = {
    "mobilenet_v2": 3_504_872 - 1_281_000,
    "convnext_tiny": 28_589_128 - 769_000,
    "convnext_small": 50_223_688 - 769_000,
    "convnext_base": 88_591_464 - 1_025_000,
    "convnext_large": 197_767_336 - 1_537_000,
    "resnet18_ibn_a": 11_689_512 - 513_000,
    "resnet34_ibn_a": 21_797_672 - 513_000,
    "resnet50_ibn_a": 25_557_032 - 2_049_000,
    "resnet101_ibn_a": 44_549_160 - 2_049_000,
    "osnet_x1_0": 2_682_508 - 513_000,
    "osnet_x0_75": 1_798_754 - 513_000,
    "osnet_x0_5": 1_143_034 - 513_000,
    "osnet_x0_25": 714_864 - 513_000,
    "osnet_ibn_x1_0": 2_683_532 - 513_000,
    "osnet_ain_x1_0": 2_682_508 - 513_000,
    "osnet_ain_x0_75": 1_798_754 - 513_000,
    "osnet_ain_x0_5": 1_143_034 - 513_000,
    "osnet_ain_x0_25": 714_864 - 513_000,
}
"""Number of parameters without the classifier.

Each number is that of the network for 1,000 classes minus its classifier. MobileNetV2 and ConvNeXt: torchvision's
documentation. ResNet-IBN-a: the same as torchvision's ResNets, because instance normalisation has a gain and a bias
per channel, like BatchNorm. OSNet: counted in torchreid 0.2.5.
"""


class Recorded(NamedTuple):
    """Names and outputs of a torchreid network.

    Args:
        names: the first digits of a hash of its state dict's names and shapes, without the classifier.
        wave: sum of its features of `picture_pair()`, each multiplied by a cosine of its index.
        total: sum of its features.
    """

    names: str
    wave: float
    total: float


RECORDED = {
    "osnet_x1_0": Recorded("5f0d0f053f51a9b5", -0.01622, 53.97977),
    "osnet_x0_75": Recorded("f76bb5964c9b16de", 0.00287, 55.98996),
    "osnet_x0_5": Recorded("21c0959d7070420c", -0.08813, 145.03304),
    "osnet_x0_25": Recorded("b516b249abfe3708", -0.07972, 88.76519),
    "osnet_ibn_x1_0": Recorded("71427fbff8b7bf06", -0.01232, 53.92812),
    "osnet_ain_x1_0": Recorded("b05919ece0aa1681", 0.01678, 56.39728),
    "osnet_ain_x0_75": Recorded("a621f7817f19225f", -0.03037, 60.23692),
    "osnet_ain_x0_5": Recorded("ce464eeda4e841f8", -0.05063, 157.0721),
    "osnet_ain_x0_25": Recorded("c592164ad131a316", 0.01483, 78.03144),
    "resnet50_ibn_a": Recorded("40058c8fec52fe49", 2.09065, 890.54793),
}
"""Recorded with torchreid 0.2.5 from PyPI, in float64 on a CPU, in eval mode.

To record them again, compute `names_of(reference.state_dict())` and `sums_of(reference(picture_pair()))`, where
`reference` is torchreid's network after `reference.load_state_dict(filled(...), strict=False)`.
"""


def filled(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns a state dict of waves that depend only on names and indices, scaled to avoid vanishing activations."""
    values: dict[str, Tensor] = {}
    for key, value in state.items():
        if not value.is_floating_point():
            values[key] = value
            continue
        seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:2], "big")
        wave = torch.sin(torch.arange(value.numel(), dtype=torch.float64) * (0.5 + seed / 65536) + seed)
        if key.endswith("running_var"):
            wave = 1 + 0.5 * wave
        elif value.dim() > 1:
            wave = wave * (2 / value[0].numel()) ** 0.5 * 1.4
        else:
            wave = 1 + 0.2 * wave if key.endswith("weight") else 0.1 * wave
        values[key] = wave.reshape(value.shape).float()
    return values


def picture_pair() -> Tensor:
    """Returns two images `[2, 3, 64, 32]` float64 of a wave."""
    return torch.sin(torch.arange(2 * 3 * 64 * 32).double() * 0.37).reshape(2, 3, 64, 32)


def names_of(state: Mapping[str, Tensor]) -> str:
    """Returns the first digits of a hash of names and shapes."""
    lines = (f"{key} {tuple(state[key].shape)}" for key in sorted(state) if not key.startswith("classifier"))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def sums_of(features: Tensor) -> tuple[float, float]:
    """Returns two sums over features `[2, D]` float64."""
    wave = torch.cos(torch.arange(features.numel()).double() * 1.7).reshape(features.shape)
    return float((features * wave).sum()), float(features.sum())
