"""Groups of a backbone's entries: for every trunk a partition in the order of its forward pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fedreid_pl.errors import FedReIDError
from fedreid_pl.models.bnneck import BNNeckBackbone
from fedreid_pl.models.exchange import entry_groups, exchanged_names
from fedreid_pl.models.ide import IDEBackbone
from fedreid_pl.models.trunks import TRUNKS, build_trunk

OTHERS = ("stem", "neck", "last_stage")


def backbone(name: str, neck: str = "ide", pooling: str = "gem") -> Any:
    with torch.device("meta"):
        trunk = build_trunk(name)
        return IDEBackbone(trunk, 8, 0.0, pooling) if neck == "ide" else BNNeckBackbone(trunk, pooling)


@pytest.mark.parametrize("name", list(TRUNKS))
@pytest.mark.parametrize("neck", ["ide", "bnneck"])
def test_the_groups_of_every_trunk_contain_every_entry_once(name: str, neck: str) -> None:
    network = backbone(name, neck)
    groups = entry_groups(network)
    stages = [group for group in groups if group not in OTHERS]
    assert stages == [f"stage{number}" for number in range(1, len(stages) + 1)] and len(stages) in (3, 4)
    assert groups["last_stage"] == groups[stages[-1]]
    parts = [groups["stem"], *(groups[stage] for stage in stages), groups["neck"]]
    assert all(parts) and sum(map(len, parts)) == len(network.state_dict())
    assert frozenset().union(*parts) == frozenset(network.state_dict())
    assert "pooling.p" in groups["neck"] and not any(name.startswith("bottleneck") for name in groups["last_stage"])


@pytest.mark.parametrize("name", list(TRUNKS))
def test_a_stage_halves_the_resolution_and_follows_the_previous_stage(name: str) -> None:
    """In a forward pass, the first layer of a group runs after all layers of the earlier groups."""
    network = backbone(name, pooling="avg")
    groups = {group: names for group, names in entry_groups(network).items() if group != "last_stage"}
    owner = {entry: place for place, names in enumerate(groups.values()) for entry in names}
    seen: list[int] = []
    heights: dict[int, int] = {}
    for path, module in network.named_modules():
        entries = [f"{path}.{own}" for own, _ in module.named_parameters(recurse=False)]
        if entries:

            def note(module: nn.Module, inputs: Any, output: Any, place: int = owner[entries[0]]) -> None:
                seen.append(place)
                if output.dim() == 4 and output.shape[2] > 1:
                    heights[place] = output.shape[2]

            module.register_forward_hook(note)
    network.train(False)(torch.empty(2, 3, 256, 128, device="meta"))
    assert seen == sorted(seen) and set(seen) == set(range(len(groups)))
    last = len(groups) - 2  # before the neck
    assert all(heights[place] <= heights[place - 1] for place in range(1, last + 1))
    assert heights[last] < heights[0]


def test_fedper_and_lg_fedavg_are_complementary() -> None:
    for name in ("small", "resnet18", "resnet50_ibn_a", "osnet_x0_25", "convnext_tiny"):
        network = backbone(name)
        below = exchanged_names(network, keep=["last_stage", "neck"])
        above = exchanged_names(network, exchange=["last_stage", "neck"])
        assert not below & above and below | above == frozenset(network.state_dict())
    small = backbone("small")
    assert {entry.split(".")[1] for entry in exchanged_names(small, keep=["last_stage", "neck"])} == {"stem", "stages"}
    assert not any(entry.startswith("trunk.stages.2.") for entry in exchanged_names(small, keep=["stage3"]))


def test_groups_and_patterns_combine_also_with_local_batch_norm() -> None:
    network = backbone("small", pooling="avg")
    sent = exchanged_names(network, exchange=["stem", "bottleneck.0.*"], norms=False)
    assert sent == {"trunk.stem.0.weight", "bottleneck.0.weight", "bottleneck.0.bias"}


def test_the_error_for_an_unknown_group_lists_the_known_groups() -> None:
    with pytest.raises(
        FedReIDError, match=r"keep=stage4: matches no entry.*groups \(stem, stage1, stage2, stage3, last"
    ):
        exchanged_names(backbone("small"), keep=["stage4"])
    plain = nn.Sequential(nn.Linear(2, 3))
    with pytest.raises(FedReIDError, match=r"exchange=last_stage: matches no entry .* groups \(neck\)$"):
        exchanged_names(plain, exchange=["last_stage"])
