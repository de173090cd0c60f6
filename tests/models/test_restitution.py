"""SNR's layers: the equations, their place in a network, and how they are loaded, copied and exchanged."""

from __future__ import annotations

import copy

import pytest
import torch

from fedreid_pl.config import ModelConfig
from fedreid_pl.errors import FedReIDError
from fedreid_pl.models.exchange import exchanged_names
from fedreid_pl.models.restitution import Restitution
from fedreid_pl.models.weights import build_backbone, load_weights

WITH = ModelConfig(name="small", weights="none", snr_stages=2)
WITHOUT = ModelConfig(name="small", weights="none")


def test_the_layer_equals_the_equations() -> None:
    torch.manual_seed(0)
    layer, maps = Restitution(32).double(), torch.randn(3, 32, 4, 3, dtype=torch.float64)
    torch.nn.init.normal_(layer.norm.weight), torch.nn.init.normal_(layer.norm.bias)
    layer.watched = True
    found = layer(maps)
    for image in range(3):
        x = maps[image]
        mean, variance = x.mean(dim=(1, 2), keepdim=True), x.var(dim=(1, 2), correction=0, keepdim=True)
        scale, shift = layer.norm.weight.view(-1, 1, 1), layer.norm.bias.view(-1, 1, 1)
        normal = (x - mean) / (variance + 1e-5).sqrt() * scale + shift
        residual = x - normal
        first, second = layer.attention[0], layer.attention[2]
        inner = (first.weight[:, :, 0, 0] @ residual.mean(dim=(1, 2)) + first.bias).clamp(min=0)
        attention = torch.sigmoid(second.weight[:, :, 0, 0] @ inner + second.bias).view(-1, 1, 1)
        torch.testing.assert_close(found[image], normal + attention * residual)
        assert layer.parts is not None
        torch.testing.assert_close(layer.parts.normal[image], normal)
        torch.testing.assert_close(layer.parts.dropped[image], normal + (1 - attention) * residual)
    assert torch.equal(layer.parts.kept, found)
    assert len(layer.attention[0].weight) == 2, "a sixteenth of the channels"


def test_the_layers_follow_the_first_stages_and_change_no_other_entry() -> None:
    backbone, plain = build_backbone(WITH), build_backbone(WITHOUT)
    own = [name for name in backbone.state_dict() if name.startswith("restitution.")]
    assert [layer.norm.num_features for layer in backbone.restitution] == [16, 32]
    state = backbone.state_dict()
    assert {name: value for name, value in state.items() if name not in own}.keys() == plain.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in plain.state_dict().items())
    images = torch.randn(2, 3, 64, 32)
    backbone.eval()
    trunk, (first, second) = backbone.trunk, backbone.restitution
    maps = first(plain.eval().trunk.stages[0](plain.trunk.stem(images)))
    maps = plain.trunk.stages[2](second(plain.trunk.stages[1](maps)))
    torch.testing.assert_close(trunk(images), maps)
    assert len(own) == 12 and exchanged_names(backbone) >= set(own)
    assert exchanged_names(backbone, norms=False) >= set(own), "instance normalisation does not count as BatchNorm"


def test_a_copy_has_separate_layers() -> None:
    backbone, images = build_backbone(WITH).eval(), torch.randn(2, 3, 64, 32)
    other = copy.deepcopy(backbone)
    before = backbone(images)
    assert torch.equal(other(images), before)
    with torch.no_grad():
        other.restitution[0].norm.weight.mul_(5)
    assert torch.equal(backbone(images), before) and not torch.equal(other(images), before)


def test_a_runs_weights_include_the_layers_and_other_weights_do_not() -> None:
    source, target, images = build_backbone(WITH, seed=1), build_backbone(WITH, seed=2), torch.randn(2, 3, 64, 32)
    line = load_weights(target, source.state_dict(), "here", "small")
    assert "the restitution" in line and "all tensors are used" in line
    assert torch.equal(target.eval()(images), source.eval()(images))
    again = build_backbone(WITH, seed=2)
    assert "restitution" not in load_weights(again, build_backbone(WITHOUT).state_dict(), "here", "small")
    assert torch.equal(again.restitution[0].norm.weight, torch.ones(16))


@pytest.mark.parametrize(
    ("name", "stages", "wanted"),
    [
        ("small", 4, "model.snr_stages=4: small has only 3"),
        ("mobilenet_v2", 1, "model.name=mobilenet_v2: model.snr_stages"),
    ],
)
def test_other_networks_are_refused(name: str, stages: int, wanted: str) -> None:
    with pytest.raises(FedReIDError, match=wanted):
        build_backbone(ModelConfig(name=name, weights="none", snr_stages=stages))
