"""Weights files in the formats of other projects, made with random numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fedreid_pl.config import ModelConfig
from fedreid_pl.errors import FedReIDError
from fedreid_pl.models.trunks import build_trunk
from fedreid_pl.models.weights import build_backbone

State = dict[str, torch.Tensor]


def trunk_state(name: str = "resnet18", seed: int = 0) -> State:
    torch.manual_seed(seed)
    return {
        key: torch.rand_like(value) if value.is_floating_point() else value
        for key, value in build_trunk(name).state_dict().items()
    }


STATE = trunk_state()
OTHER = trunk_state(seed=1)
NECK = {
    "weight": torch.rand(512),
    "bias": torch.zeros(512),
    "running_mean": torch.rand(512),
    "running_var": torch.rand(512),
}


def under(prefix: str, state: State = STATE) -> State:
    return {prefix + key: value for key, value in state.items()}


FORMS: dict[str, Any] = {
    "torchvision": {**STATE, "fc.weight": torch.rand(1000, 512), "fc.bias": torch.rand(1000)},
    "torchreid": {
        "state_dict": under("module."),
        "epoch": 60,
        "rank1": np.float32(0.9),
        "optimizer": {"state": {0: {"momentum_buffer": torch.rand(3)}}, "param_groups": [{"lr": 0.1}]},
        "scheduler": {"last_epoch": 3},
    },
    "torchreid, float64 beside": {"state_dict": under("module."), "rank1": np.float64(0.9), "epoch": np.int64(3)},
    "fast-reid": {
        "model": {**under("backbone."), **{f"heads.bottleneck.0.{key}": value for key, value in NECK.items()}}
    },
    "bag of tricks": {**under("base."), **{f"bottleneck.{key}": value for key, value in NECK.items()}},
    "data parallel of it": under("module.base."),
    "moco": {"state_dict": {**under("module.encoder_q."), **under("module.encoder_k.", OTHER)}, "arch": "resnet18"},
    "dino": {"student": under("module.backbone.", OTHER), "teacher": under("backbone."), "epoch": 3},
    "lightning": {"state_dict": {**under("model.backbone.trunk."), "model.head.weight": torch.rand(3, 512)}},
    "boxmot": {"model_name": "resnet18", "num_classes": 751, "state_dict": STATE},
    "two deep": {"checkpoint": {"model_state_dict": STATE}},
    "whole net": {"net": STATE, "acc": 93.1},
}


def built(path: Path, neck: str = "bottleneck", name: str = "resnet18") -> tuple[Any, str]:
    lines: list[str] = []
    config = ModelConfig(name=name, weights=str(path), neck=neck, channels_last=False)
    return build_backbone(config, 0, lines.append), "".join(lines)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_trunk(tmp_path: Path, form: str) -> None:
    torch.save(FORMS[form], tmp_path / "w.pth")
    backbone, line = built(tmp_path / "w.pth")
    assert all(torch.equal(value, STATE[key]) for key, value in backbone.trunk.state_dict().items())
    assert "loaded the resnet18 trunk" in line and "and the neck" not in line


def flat(key: str) -> str:
    """Returns the name of a MobileNetV2 tensor in programs that store a block's layers in one flat list."""
    parts = key.split(".")
    if parts[2] != "conv" or parts[1] in ("0", "18"):
        return key
    first = parts[1] == "1"
    places = {"0": 0, "1": 3} if first else {"0": 0, "1": 3, "2": 6, "3": 7}
    places |= {"1": 3, "2": 4} if first else {}
    nested = len(parts) == 6
    place = places[parts[3]] + (int(parts[4]) if nested else 0)
    return ".".join([*parts[:3], str(place), parts[-1]])


def test_mobilenet_with_flat_blocks(tmp_path: Path) -> None:
    state = trunk_state("mobilenet_v2")
    torch.save({"state_dict": {flat(key): value for key, value in state.items()}}, tmp_path / "w.pth")
    backbone, line = built(tmp_path / "w.pth", name="mobilenet_v2")
    assert all(torch.equal(value, state[key]) for key, value in backbone.trunk.state_dict().items())
    assert "renamed as in torchvision; all tensors are used" in line


def test_classifiers_of_other_networks_are_skipped(tmp_path: Path) -> None:
    torchvision = {**trunk_state("convnext_tiny"), "classifier.2.weight": torch.rand(9, 768)}
    torch.save(torchvision, tmp_path / "w.pth")
    assert "1 tensors are not used (classifier.2.weight)" in built(tmp_path / "w.pth", name="convnext_tiny")[1]
    torchreid = {
        "state_dict": under("module.", {**trunk_state("osnet_x0_25"), "classifier.weight": torch.rand(9, 512)})
    }
    torch.save(torchreid, tmp_path / "w.pth")
    assert "1 tensors are not used (module.classifier.weight)" in built(tmp_path / "w.pth", name="osnet_x0_25")[1]


@pytest.mark.parametrize(("held", "wanted"), [("resnet50_ibn_a", "resnet50"), ("resnet50", "resnet50_ibn_a")])
def test_instance_norm_is_another_network(tmp_path: Path, held: str, wanted: str) -> None:
    torch.save(trunk_state(held), tmp_path / "w.pth")
    with pytest.raises(FedReIDError, match=r"set model\.name to the network of the file"):
        built(tmp_path / "w.pth", name=wanted)


def test_swin_s_older_names(tmp_path: Path) -> None:
    """In Microsoft's code, and in SOLIDER's files, a layer between stages belongs to the earlier stage."""
    pytest.importorskip("timm")
    state = trunk_state("timm:swin_tiny_patch4_window7_224")
    names = {key: key.removeprefix("network.") for key in state}
    older = {
        key: f"layers.{int(name[7]) - 1}{name[8:]}" if ".downsample." in name else name for key, name in names.items()
    }
    assert sum(older[key] != names[key] for key in names) == 9  # two tensors of norm and one of reduction, three times
    torch.save(
        {
            "teacher": {older[key]: value for key, value in state.items()}
            | {"layers.0.blocks.1.attn_mask": torch.rand(2)}
        },
        tmp_path / "w.pth",
    )
    backbone, line = built(tmp_path / "w.pth", name="timm:swin_tiny_patch4_window7_224")
    assert all(torch.equal(value, state[key]) for key, value in backbone.trunk.state_dict().items())
    assert "renamed as in timm" in line


def test_unused_tensors_are_listed(tmp_path: Path) -> None:
    torch.save(FORMS["torchvision"], tmp_path / "w.pth")
    assert "2 tensors are not used (fc.weight, fc.bias)" in built(tmp_path / "w.pth")[1]
    torch.save(FORMS["fast-reid"], tmp_path / "w.pth")
    line = built(tmp_path / "w.pth")[1]
    assert "names begin with 'backbone.'" in line and "4 tensors are not used (heads.bottleneck.0.weight" in line


@pytest.mark.parametrize("form", ["fast-reid", "bag of tricks"])
def test_a_bnneck_is_loaded_into_a_bnneck(tmp_path: Path, form: str) -> None:
    torch.save(FORMS[form], tmp_path / "w.pth")
    backbone, line = built(tmp_path / "w.pth", "bnneck")
    for key in ("weight", "running_mean", "running_var"):
        assert torch.equal(backbone.bottleneck.state_dict()[key], NECK[key])
    assert "and the neck" in line


def test_a_neck_of_another_kind_is_not_loaded(tmp_path: Path) -> None:
    state = {**under("base."), **under("bottleneck.", NECK)}
    torch.save({**state, "bottleneck.bias": torch.ones(512)}, tmp_path / "w.pth")
    backbone, line = built(tmp_path / "w.pth", "bnneck")
    assert torch.equal(backbone.bottleneck.weight, torch.ones(512))
    assert "not used (bottleneck.weight" in line


def test_a_backbone_of_this_project_is_loaded_with_its_neck(tmp_path: Path) -> None:
    own = build_backbone(ModelConfig(name="resnet18", weights="none", channels_last=False), seed=7)
    save_file(own.state_dict(), tmp_path / "w.safetensors")
    again, line = built(tmp_path / "w.safetensors")
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in own.state_dict().items())
    assert line.endswith("all tensors are used")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (trunk_state("resnet34"), "of another network than resnet18: it has 'layer1.2"),
        ({"model": under("backbone.", trunk_state("resnet34"))}, "of another network"),
        (trunk_state("resnet50"), "layer1.0.conv1.weight' has shape (64, 64, 1, 1)"),
        ({key: value for key, value in STATE.items() if "layer4" not in key}, "'layer4.0.conv1.weight' is missing"),
        ({**under("one."), **under("two.")}, "contains this network 2 times, under 'one.' and 'two.'"),
        ({f"bn1.IN.{key}": value for key, value in NECK.items()}, "contains no weights of resnet18"),
        ({"state_dict": {"a": 1}}, "contains no state dict"),
    ],
    ids=["deeper", "deeper, wrapped", "bottlenecks", "part", "twice", "others", "numbers"],
)
def test_invalid_files_are_refused(tmp_path: Path, content: Any, words: str) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(FedReIDError) as caught:
        built(tmp_path / "w.pth")
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_torchscript_is_refused_by_name(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "w.pt")
    with pytest.raises(FedReIDError, match="is a TorchScript archive"):
        built(tmp_path / "w.pt")


def test_damaged_safetensors(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "w.safetensors")
    data = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(FedReIDError, match="is damaged"):
        built(tmp_path / "w.safetensors")
