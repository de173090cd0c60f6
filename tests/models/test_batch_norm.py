"""Re-estimated running statistics, compared with two passes by hand; other entries do not change."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedreid_pl.models.batch_norm import norm_names, recalibrate
from fedreid_pl.models.ide import IDEBackbone
from fedreid_pl.models.trunks import build_trunk


def make_backbone() -> IDEBackbone:
    torch.manual_seed(0)
    backbone = IDEBackbone(build_trunk("small"), feature_dim=8)
    for _ in range(2):
        backbone.train()(torch.randn(4, 3, 64, 32))
    return backbone


def test_names_equal_those_found_in_the_state_dict() -> None:
    backbone = make_backbone()
    state = backbone.state_dict()
    layers = {name.removesuffix(".running_mean") for name in state if name.endswith(".running_mean")}
    assert norm_names(backbone) == {name for name in state if name.rpartition(".")[0] in layers}
    assert len(layers) == 11


def test_the_first_layer_uses_the_mean_over_batches_and_later_layers_its_normalised_output() -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.9), nn.BatchNorm1d(3))
    batches = [torch.randn(size, 3) * 2 + 1 for size in (6, 6, 4)]
    recalibrate(net, batches)
    means = torch.stack([batch.mean(0) for batch in batches]).mean(0)
    torch.testing.assert_close(net[0].running_mean, means)
    inner = [(batch - batch.mean(0)) / (batch.var(0, unbiased=False) + net[0].eps).sqrt() for batch in batches]
    torch.testing.assert_close(net[2].running_var, torch.stack([batch.var(0) for batch in inner]).mean(0))
    assert net[0].momentum == 0.1 and not any(module.training for module in net.modules())


def test_only_running_statistics_change_and_old_ones_have_no_effect() -> None:
    one, other = make_backbone(), make_backbone()
    before = {name: value.clone() for name, value in one.state_dict().items()}
    for value in other.buffers():
        if value.is_floating_point():
            value.fill_(7.0)
    images, state = [torch.randn(5, 3, 64, 32) for _ in range(2)], torch.get_rng_state()
    for backbone in (one, other):
        recalibrate(backbone, images)
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
        assert torch.equal(value, before[name]) == (not name.endswith(("running_mean", "running_var"))), name
    assert all(parameter.grad is None for parameter in one.parameters())


def test_no_image_is_an_error() -> None:
    with pytest.raises(ValueError, match="no images"):
        recalibrate(nn.BatchNorm1d(2), [])
