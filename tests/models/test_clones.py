"""A copy of some entries of a network: its content, and forward passes of the network with the copy."""

from __future__ import annotations

import pytest
import support
import tiny_turn
import torch
from torch import nn
from torch.func import functional_call

from fedreid_pl.config import OptimConfig
from fedreid_pl.models.batch_norm import norm_names
from fedreid_pl.models.clones import Clones
from fedreid_pl.models.ide import IDEBackbone
from fedreid_pl.models.optimizer import parameter_groups
from fedreid_pl.models.trunks import build_trunk


def test_a_copy_of_batch_norm_contains_only_batch_norm() -> None:
    network, clones = tiny_turn.make_backbone(), Clones()
    clone = clones.clone(network, True, norm_names(network))
    assert set(clone.state_dict()) == norm_names(network)
    support.assert_equal(dict(clone.state_dict()), {name: network.state_dict()[name] for name in norm_names(network)})
    assert clones.nbytes == sum(value.nbytes for value in clone.state_dict().values())
    assert len(list(network.parameters())) == 4, "the original is complete"
    with torch.no_grad():
        network[1].weight.add_(1)
    assert not torch.equal(clone.state_dict()["1.weight"], network[1].weight), "no tensor is shared"


def test_the_network_runs_with_the_copy_and_updates_only_its_statistics() -> None:
    """Compares with a network that contains both parts."""
    network, other = tiny_turn.make_backbone(), tiny_turn.make_backbone(seed=3)
    clone = Clones().clone(other, True, norm_names(other))
    whole = tiny_turn.make_backbone()
    whole.load_state_dict({**network.state_dict(), **clone.state_dict()})
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    own = {**dict(clone.named_parameters()), **dict(clone.named_buffers())}
    found, wanted = functional_call(network, own, (images,)), whole(images)
    assert torch.equal(found, wanted)
    found.square().sum().backward(), wanted.square().sum().backward()
    assert torch.equal(network[0].weight.grad, whole[0].weight.grad) and network[1].weight.grad is None
    assert torch.equal(dict(clone.named_parameters())["1.weight"].grad, whole[1].weight.grad)
    support.assert_equal(dict(network.state_dict()), before)
    support.assert_equal(dict(clone.state_dict()), {n: whole.state_dict()[n] for n in norm_names(whole)})


@pytest.mark.parametrize(("bottleneck", "rate"), [("backbone", 0.1), ("head", 0.7)])
def test_its_parameters_have_the_rates_of_the_originals(bottleneck: str, rate: float) -> None:
    backbone, clones = IDEBackbone(build_trunk("small"), 8), Clones()
    clone = clones.clone(backbone, True, norm_names(backbone))
    optim = OptimConfig(lr_backbone=0.1, lr_head=0.7, bottleneck=bottleneck)
    groups = parameter_groups(backbone, nn.Linear(8, 2), clones, optim)
    rates = {id(value): group["lr"] for group in groups for value in group["params"]}
    for name, value in clone.named_parameters():
        assert rates[id(value)] == (rate if name.startswith("bottleneck.") else 0.1), name
    assert len(rates) == len([*backbone.parameters(), *clone.parameters()]) + 2
