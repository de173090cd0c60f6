"""The compiled trunk: one graph for all clients, only for full batches, without changes of the network."""

from __future__ import annotations

import copy
import os
import shutil
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedreid_pl.models.compiled import CompiledTrunk
from fedreid_pl.models.ide import IDEBackbone, build_head
from fedreid_pl.models.trunks import build_trunk

pytestmark = pytest.mark.system

BATCH = 6


class Graphs:
    """A backend that runs graphs unchanged, and counts the graphs and their runs."""

    def __init__(self) -> None:
        self.made = self.run = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        self.made += 1

        def counted(*args: Tensor) -> Any:
            self.run += 1
            return graph.forward(*args)

        return counted


@pytest.fixture
def backbone() -> IDEBackbone:
    torch._dynamo.reset()
    torch.manual_seed(0)
    return IDEBackbone(build_trunk("small"), feature_dim=16)


def images(count: int = BATCH, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 32, 16, generator=torch.Generator().manual_seed(seed))


def train(backbone: nn.Module, compiled: CompiledTrunk | None, sizes: list[int], identities: int) -> nn.Module:
    """Runs one client's steps and returns its head."""
    torch.manual_seed(1)
    head = build_head(16, identities, torch.Generator().manual_seed(2))
    sgd = torch.optim.SGD([*backbone.parameters(), *head.parameters()], lr=0.1)
    for number, size in enumerate(sizes):
        batch = images(size, number)
        sgd.zero_grad()
        if compiled is None:
            loss = F.cross_entropy(head(backbone(batch)), torch.arange(size) % identities)
        else:
            with compiled.full_batch(batch):
                loss = F.cross_entropy(head(backbone(batch)), torch.arange(size) % identities)
        loss.backward()
        sgd.step()
    return head


def test_one_graph_is_used_for_all_clients_and_changes_no_bit(backbone: IDEBackbone) -> None:
    plain, graphs = copy.deepcopy(backbone), Graphs()
    compiled = CompiledTrunk(backbone, "default", BATCH, graphs)
    for identities in (3, 5, 4):
        heads = [train(network, how, [6, 6, 4], identities) for network, how in ((plain, None), (backbone, compiled))]
        for left, right in zip(heads[0].state_dict().values(), heads[1].state_dict().values(), strict=True):
            assert torch.equal(left, right)
    assert (graphs.made, graphs.run) == (1, 6)  # two full batches of each client
    assert list(backbone.state_dict()) == list(plain.state_dict())
    for name, value in plain.state_dict().items():
        assert torch.equal(value, backbone.state_dict()[name]), name


def test_evaluation_copies_and_steps_after_an_error_are_not_compiled(backbone: IDEBackbone) -> None:
    graphs = Graphs()
    compiled = CompiledTrunk(backbone, "default", BATCH, graphs)
    with pytest.raises(RuntimeError, match="from the batch"), compiled.full_batch(images()):
        raise RuntimeError("from the batch")
    assert "forward" not in vars(backbone.trunk)
    backbone(images())
    copy.deepcopy(backbone)(images())
    backbone.eval()
    with compiled.full_batch(images()):
        backbone(images())
    assert graphs.made == 0


def test_the_step_with_and_without_the_compiled_trunk_of_embeddings(backbone: IDEBackbone) -> None:
    graphs = Graphs()
    compiled = CompiledTrunk(backbone, "default", BATCH, graphs)
    torch.manual_seed(3)
    with compiled.full_batch(images()):
        one = backbone.embeddings(images())
    torch.manual_seed(3)
    other = backbone.embeddings(images())
    assert graphs.run == 1
    assert all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


COMPILER = any(name and shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++", "c++"))


@pytest.mark.skipif(not COMPILER, reason="needs a C++ compiler")
def test_the_real_compiler_agrees_within_rounding(backbone: IDEBackbone) -> None:
    backbone.trunk = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    plain = copy.deepcopy(backbone)
    compiled = CompiledTrunk(backbone, "default", BATCH)
    with compiled.full_batch(images()):
        backbone.trunk(images()).square().mean().backward()
    plain.trunk(images()).square().mean().backward()
    assert not hasattr(backbone.trunk, "_orig_mod")
    for (name, left), right in zip(plain.trunk.named_parameters(), backbone.trunk.parameters(), strict=True):
        assert left.grad is not None and right.grad is not None
        torch.testing.assert_close(left.grad, right.grad, rtol=1e-3, atol=1e-6, msg=name)
    for left, right in zip(plain.buffers(), backbone.buffers(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6)
