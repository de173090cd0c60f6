"""Trunks compared with torchvision's networks and with shapes computed by hand."""

from __future__ import annotations

import pytest
import torch
from published import PUBLISHED
from torch import nn
from torchvision.models import resnet

from fedreid_pl.errors import FedReIDError
from fedreid_pl.models.trunks import TRUNKS, SmallResNet, build_trunk

CHANNELS = {"small": 64, "resnet18": 512, "resnet34": 512, "resnet50": 2048, "resnet101": 2048}


def images(batch=2, seed=0) -> torch.Tensor:
    return torch.randn(batch, 3, 64, 32, generator=torch.Generator().manual_seed(seed))


def shells(name):
    """Returns a trunk and torchvision's network on the meta device."""
    with torch.device("meta"):
        return build_trunk(name), getattr(resnet, name)(weights=None)


def pair(name):
    """Returns a trunk and torchvision's network without classifier, with equal random weights and statistics."""
    torch.manual_seed(0)
    trunk, network = (shell.to_empty(device="cpu") for shell in shells(name))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0, (2 / module.weight[:, 0].numel()) ** 0.5)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            module.num_batches_tracked.zero_()
    network.fc = nn.Identity()
    trunk.load_state_dict(network.state_dict())
    return trunk.eval(), network.eval()


@pytest.mark.parametrize("last_stride", [1, 2])
@pytest.mark.parametrize("name", list(CHANNELS))
def test_output_shapes(name, last_stride):
    with torch.device("meta"):
        trunk, picture = build_trunk(name, last_stride), torch.empty(1, 3, 64, 32)
    reduction = 16 if name == "small" else 32
    if last_stride == 1:
        reduction //= 2
    assert trunk.out_channels == CHANNELS[name]
    assert trunk(picture).shape == (1, CHANNELS[name], 64 // reduction, 32 // reduction)


def test_every_trunk_is_covered_here_or_in_test_backbones():
    assert set(TRUNKS) == set(CHANNELS) | set(PUBLISHED)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_forward_is_torchvision_s(name):
    trunk, network = pair(name)
    with torch.inference_mode():
        maps, expected = trunk(images()), network(images())
    torch.testing.assert_close(maps.mean(dim=(2, 3)), expected)
    assert expected.std() > 1e-3


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_training_mode_is_torchvision_s(name):
    trunk, network = pair(name)
    maps, expected = trunk.train()(images(4)), network.train()(images(4))
    torch.testing.assert_close(maps.mean(dim=(2, 3)), expected)
    for key, value in network.state_dict().items():
        torch.testing.assert_close(trunk.state_dict()[key], value)  # the statistics changed equally


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_weights_are_torchvision_s_without_the_classifier(name):
    trunk, network = shells(name)
    expected = {key: value.shape for key, value in network.state_dict().items() if not key.startswith("fc.")}
    assert {key: value.shape for key, value in trunk.state_dict().items()} == expected
    names = [key for key, _ in network.named_parameters() if not key.startswith("fc.")]
    assert [key for key, _ in trunk.named_parameters()] == names


def test_resnet50_s_size_is_the_published_one():
    trunk, _ = shells("resnet50")
    classifier = 2048 * 1000 + 1000
    assert sum(parameter.numel() for parameter in trunk.parameters()) == 25_557_032 - classifier


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_last_stride_changes_two_convolutions(name):
    """The convolutions of the first block and its shortcut; torchvision strides a bottleneck's 3 x 3 convolution."""
    with torch.device("meta"):
        coarse, fine = (dict(build_trunk(name, stride).named_modules()) for stride in (2, 1))
    changed = {
        key: (module.stride, fine[key].stride)
        for key, module in coarse.items()
        if isinstance(module, nn.Conv2d) and module.stride != fine[key].stride
    }
    first = "layer4.0.conv1" if name in ("resnet18", "resnet34") else "layer4.0.conv2"
    assert changed == dict.fromkeys([first, "layer4.0.downsample.0"], ((2, 2), (1, 1)))


def test_small_trunk_s_size_is_as_documented():
    stage = lambda a, b: 9 * a * b + 9 * b * b + a * b + 3 * 2 * b  # noqa: E731  three convolutions, three norms
    expected = 9 * 3 * 16 + 2 * 16 + stage(16, 16) + stage(16, 32) + stage(32, 64)
    count = sum(parameter.numel() for parameter in SmallResNet().parameters())
    assert count == expected
    assert round(count / 1000) == 78


def test_small_trunk_against_convolutions_written_out():
    torch.manual_seed(0)
    trunk = SmallResNet(width=4)
    for module in trunk.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    state = trunk.eval().state_dict()

    def convolve(maps, conv, norm, stride, padding):
        maps = torch.conv2d(maps, state[f"{conv}.weight"], stride=stride, padding=padding)
        mean, var, gain, bias = (
            state[f"{norm}.{part}"].view(-1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (maps - mean) / (var + 1e-5).sqrt() * gain + bias

    maps = convolve(images(), "stem.0", "stem.1", 2, 1).clamp(min=0)
    for number in range(3):
        block = f"stages.{number}"
        inner = convolve(maps, f"{block}.conv1", f"{block}.bn1", 2, 1).clamp(min=0)
        inner = convolve(inner, f"{block}.conv2", f"{block}.bn2", 1, 1)
        shortcut = convolve(maps, f"{block}.downsample.0", f"{block}.downsample.1", 2, 0)
        maps = (inner + shortcut).clamp(min=0)
    with torch.inference_mode():
        torch.testing.assert_close(trunk(images()), maps, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["small", "resnet18"])
def test_every_weight_gets_a_gradient(name):
    torch.manual_seed(0)
    trunk = build_trunk(name).train()
    (trunk(images(4)) * torch.randn(1, trunk.out_channels, 1, 1)).sum().backward()
    for key, parameter in trunk.named_parameters():
        assert torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.abs().max() > 0, key


def test_unknown_trunks_and_strides_are_refused():
    with pytest.raises(FedReIDError, match=r"model\.name=resnet5: .*resnet50"):
        build_trunk("resnet5")
    for stride in (0, 3):
        with pytest.raises(FedReIDError, match=rf"model\.last_stride={stride}: must be 1 or 2"):
            build_trunk("small", stride)
