"""The BNNeck compared with arithmetic in float64, and both backbones' features for a metric loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fedreid_pl.config import ModelConfig
from fedreid_pl.functional.triplet import batch_hard_triplet
from fedreid_pl.models.batch_norm import norm_names, recalibrate
from fedreid_pl.models.bnneck import BNNeckBackbone
from fedreid_pl.models.ide import IDEBackbone, build_head
from fedreid_pl.models.trunks import build_trunk
from fedreid_pl.models.weights import build_backbone


class Maps(nn.Module):
    """A trunk that returns its input as feature maps."""

    out_channels = 6

    def forward(self, maps: Tensor) -> Tensor:
        return maps


def bnneck() -> BNNeckBackbone:
    torch.manual_seed(0)
    model = BNNeckBackbone(Maps())
    norm = model.bottleneck
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    nn.init.uniform_(norm.weight, 0.5, 2.0)
    return model


def pooled(maps: Tensor) -> Tensor:
    return maps.double().sum(3).sum(2) / (maps.shape[2] * maps.shape[3])


def test_evaluation_by_hand() -> None:
    model = bnneck().eval()
    maps, norm = torch.randn(7, 6, 4, 2), model.bottleneck
    mean, var = norm.running_mean.double(), norm.running_var.double()
    expected = (pooled(maps) - mean) / (var + 1e-5).sqrt() * norm.weight.double()
    torch.testing.assert_close(model(maps).double(), expected, rtol=1e-5, atol=1e-5)


def test_training_by_hand() -> None:
    model = bnneck().train()
    maps, norm = torch.randn(7, 6, 4, 2), model.bottleneck
    raw, before = pooled(maps), norm.running_mean.double()
    expected = (raw - raw.mean(0)) / (raw.var(0, unbiased=False) + 1e-5).sqrt() * norm.weight.double()
    metric, features = model.embeddings(maps)
    torch.testing.assert_close(features.double(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(metric.double(), raw, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(norm.running_mean.double(), 0.9 * before + 0.1 * raw.mean(0), rtol=1e-5, atol=1e-5)


def test_neither_batch_norm_nor_classifier_has_a_bias() -> None:
    model = BNNeckBackbone(build_trunk("small"))
    names = {name for name in model.state_dict() if not name.startswith("trunk.")}
    assert names == {f"bottleneck.{name}" for name in ("weight", "running_mean", "running_var", "num_batches_tracked")}
    assert names < norm_names(model)
    assert torch.equal(model.bottleneck.weight, torch.ones(64))
    assert model.feature_dim == 64
    head = build_head(model.feature_dim, 5, torch.Generator().manual_seed(0), bias=model.head_bias)
    other = build_head(64, 5, torch.Generator().manual_seed(0), bias=IDEBackbone.head_bias)
    assert [name for name, _ in head.named_parameters()] == ["weight"]
    assert torch.equal(head.weight, other.weight) and (other.bias == 0).all()


def test_the_configuration_selects_the_neck_and_the_trunk_its_size() -> None:
    options: dict[str, Any] = {"name": "small", "weights": "none", "feature_dim": 33}
    plain, neck = build_backbone(ModelConfig(**options)), build_backbone(ModelConfig(**options, neck="bnneck"))
    assert (type(plain), plain.feature_dim) == (IDEBackbone, 33)
    assert (type(neck), neck.feature_dim) == (BNNeckBackbone, 64)
    for name, value in plain.trunk.state_dict().items():
        assert torch.equal(value, neck.trunk.state_dict()[name]), "both backbones draw the trunk's weights first"
    images = torch.randn(3, 3, 64, 32)
    assert neck.eval()(images).shape == (3, 64)


def test_a_metric_loss_has_no_gradient_at_the_neck_and_cross_entropy_everywhere() -> None:
    torch.manual_seed(0)
    model = BNNeckBackbone(build_trunk("small")).train()
    head = build_head(64, 4, bias=False)
    labels = torch.arange(8) % 4
    metric, features = model.embeddings(torch.randn(8, 3, 64, 32))
    batch_hard_triplet(metric, labels, None).backward(retain_graph=True)
    assert model.bottleneck.weight.grad is None
    moved = [float(value.grad.abs().max()) for value in model.trunk.parameters() if value.grad is not None]
    assert len(moved) == len(list(model.trunk.parameters())) and min(moved) > 0
    nn.functional.cross_entropy(head(features), labels).backward()
    for name, value in [*model.named_parameters(), *head.named_parameters()]:
        assert value.grad is not None and float(value.grad.abs().max()) > 0, name


def test_running_statistics_can_be_re_estimated() -> None:
    model = bnneck()
    maps = torch.randn(9, 6, 4, 2)
    recalibrate(model, [maps])
    torch.testing.assert_close(model.bottleneck.running_var.double(), pooled(maps).var(0), rtol=1e-4, atol=1e-5)


def test_under_mixed_precision_features_are_finite_and_close() -> None:
    model = BNNeckBackbone(build_trunk("small")).train()
    images = torch.randn(8, 3, 64, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model.embeddings(images)
    for value, wanted in zip(half, model.embeddings(images), strict=True):
        torch.testing.assert_close(value.float(), wanted, rtol=0.1, atol=0.1)


def test_metric_features_of_the_bottleneck_come_from_its_linear_layer() -> None:
    torch.manual_seed(0)
    model = IDEBackbone(Maps(), feature_dim=5, dropout=0.5).train()
    maps, linear = torch.randn(7, 6, 4, 2), model.bottleneck[0]
    torch.manual_seed(1)
    metric, features = model.embeddings(maps)
    torch.testing.assert_close(metric.double(), pooled(maps) @ linear.weight.double().T, rtol=1e-5, atol=1e-5)
    torch.manual_seed(1)
    assert torch.equal(features, model(maps)) and bool((features == 0).any()), "the head's input, including dropout"
