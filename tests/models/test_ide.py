"""The IDE backbone and the head against arithmetic in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedreid_pl.models.ide import IDEBackbone, build_head
from fedreid_pl.models.trunks import build_trunk


class Maps(nn.Module):
    """A trunk that returns its input as feature maps."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_channels = channels

    def forward(self, maps):
        return maps


def backbone(channels=6, feature_dim=5, dropout=0.5, seed=0) -> IDEBackbone:
    torch.manual_seed(seed)
    model = IDEBackbone(Maps(channels), feature_dim, dropout)
    norm = model.bottleneck[1]
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    nn.init.normal_(norm.bias)
    return model


def linear_of(model, maps):
    """Returns pooled maps times the bottleneck's weight, in float64."""
    pooled = maps.double().sum(3).sum(2) / (maps.shape[2] * maps.shape[3])
    layer = model.bottleneck[0]
    return (pooled[:, None, :] * layer.weight.double()).sum(2) + layer.bias.double()


def test_evaluation_by_hand():
    model = backbone().eval()
    maps = torch.randn(7, 6, 4, 2)
    norm = model.bottleneck[1]
    mean, var = norm.running_mean.double(), norm.running_var.double()
    expected = (linear_of(model, maps) - mean) / (var + 1e-5).sqrt() * norm.weight.double() + norm.bias.double()
    torch.testing.assert_close(model(maps).double(), expected, rtol=1e-5, atol=1e-5)


def test_training_by_hand():
    model = backbone(dropout=0.0).train()
    maps = torch.randn(7, 6, 4, 2)
    norm = model.bottleneck[1]
    before = norm.running_mean.clone()
    raw = linear_of(model, maps)
    mean, var = raw.mean(0), raw.var(0, unbiased=False)
    expected = (raw - mean) / (var + 1e-5).sqrt() * norm.weight.double() + norm.bias.double()
    torch.testing.assert_close(model(maps).double(), expected, rtol=1e-4, atol=1e-4)
    moved = 0.9 * before.double() + 0.1 * mean
    torch.testing.assert_close(norm.running_mean.double(), moved, rtol=1e-5, atol=1e-5)


def test_dropout_acts_only_in_training():
    model = backbone(feature_dim=400, dropout=0.25).train()
    maps = torch.randn(50, 6, 2, 2)
    dropped = model(maps) == 0
    assert dropped.float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert not torch.equal(model(maps), model(maps))
    model.eval()
    assert torch.equal(model(maps), model(maps))
    assert (model(maps) != 0).all()


@pytest.mark.parametrize("feature_dim", [512, 17])
def test_features_of_images(feature_dim):
    model = IDEBackbone(build_trunk("small"), feature_dim).eval()
    assert model.feature_dim == feature_dim
    with torch.inference_mode():
        assert model(torch.randn(3, 3, 64, 32)).shape == (3, feature_dim)


def test_features_in_evaluation_do_not_depend_on_the_rest_of_the_batch():
    torch.manual_seed(0)
    model = IDEBackbone(build_trunk("small")).eval()
    images = torch.randn(6, 3, 64, 32)
    with torch.inference_mode():
        together, alone = model(images), torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_every_weight_gets_a_gradient():
    torch.manual_seed(0)
    model = IDEBackbone(build_trunk("small")).train()
    head = build_head(512, 4)
    loss = nn.functional.cross_entropy(head(model(torch.randn(8, 3, 64, 32))), torch.arange(8) % 4)
    loss.backward()
    for key, parameter in [*model.named_parameters(), *head.named_parameters()]:
        assert torch.isfinite(parameter.grad).all(), key
        if key != "bottleneck.0.bias":  # no effect: BatchNorm subtracts the mean
            assert parameter.grad.abs().max() > 1e-9, key


def test_gradient_of_the_bottleneck_is_right():
    model = backbone(channels=3, feature_dim=2, dropout=0.0).double().train()
    maps = torch.randn(4, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(model, (maps,))


def test_bottleneck_s_initial_weights():
    torch.manual_seed(0)
    linear, norm, _ = IDEBackbone(Maps(2048)).bottleneck
    assert linear.weight.std().item() == pytest.approx((2 / 512) ** 0.5, rel=0.01)  # He et al., fan out
    assert linear.bias.abs().max() == 0
    assert norm.weight.mean().item() == pytest.approx(1.0, abs=0.004)
    assert norm.weight.std().item() == pytest.approx(0.02, rel=0.15)
    assert norm.bias.abs().max() == 0


def test_head_s_initial_weights():
    head = build_head(512, 1041, torch.Generator().manual_seed(0))
    assert head.weight.shape == (1041, 512)
    assert head.weight.mean().item() == pytest.approx(0.0, abs=1e-5)
    assert head.weight.std().item() == pytest.approx(0.001, rel=0.01)
    assert ((head.weight.abs() < 0.001).float().mean()).item() == pytest.approx(0.6827, abs=0.005)  # normal
    assert (head.bias == 0).all()
    assert head(torch.zeros(2, 512)).shape == (2, 1041)


def test_head_depends_only_on_its_generator():
    heads = []
    for seed in (3, 3, 4):
        torch.manual_seed(len(heads))
        heads.append(build_head(16, 5, torch.Generator().manual_seed(seed)).weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert heads[0].requires_grad
