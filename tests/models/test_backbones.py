"""Backbones compared with their original libraries, published sizes, and recorded outputs of torchreid."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from published import PUBLISHED, RECORDED, filled, names_of, picture_pair, sums_of
from torch import Tensor, nn
from torchvision.models import convnext_tiny, mobilenet_v2

from fedreid_pl.config import ModelConfig
from fedreid_pl.config.trusted import is_trusted, trust
from fedreid_pl.errors import FedReIDError
from fedreid_pl.models.batch_norm import norm_names, recalibrate
from fedreid_pl.models.exchange import exchanged_names
from fedreid_pl.models.pooling import GeMPooling
from fedreid_pl.models.trunks import TRUNKS, build_trunk
from fedreid_pl.models.trunks.resnet import IBN
from fedreid_pl.models.weights import build_backbone, load_weights

SIZE = (64, 32)


def images(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, *SIZE, generator=torch.Generator().manual_seed(0))


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def backbone(name: str, **options: Any) -> Any:
    return build_backbone(ModelConfig(name=name, weights="none", channels_last=False, **options), 0, size=SIZE)


# sizes and outputs


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_sizes_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        assert count(build_trunk(name)) == PUBLISHED[name]


@pytest.mark.parametrize("name", list(RECORDED))
def test_names_and_features_are_torchreid_s(name: str) -> None:
    trunk = build_trunk(name).double().eval()
    trunk.load_state_dict(filled(trunk.state_dict()))
    assert names_of(trunk.state_dict()) == RECORDED[name].names
    with torch.inference_mode():
        features = trunk.finish(trunk(picture_pair()).mean(dim=(2, 3)))
    assert features.shape == (2, trunk.out_channels)
    assert sums_of(features) == pytest.approx((RECORDED[name].wave, RECORDED[name].total), abs=2e-4)


@pytest.mark.parametrize(("name", "make"), [("mobilenet_v2", mobilenet_v2), ("convnext_tiny", convnext_tiny)])
def test_features_are_torchvision_s(name: str, make: Any) -> None:
    torch.manual_seed(1)
    network, trunk = make(weights=None).eval(), build_trunk(name).eval()
    state = network.state_dict()
    trunk.load_state_dict({key: state[key] for key in trunk.state_dict()})  # the trunk has torchvision's names
    network.classifier[-1] = nn.Identity()
    with torch.inference_mode():
        torch.testing.assert_close(trunk.finish(trunk(images()).mean(dim=(2, 3))), network(images()))


def test_stochastic_depth_is_off() -> None:
    trunk = build_trunk("convnext_tiny").train()
    assert torch.equal(trunk(images(1)), trunk(images(1)))


def test_ibn_splits_the_channels() -> None:
    torch.manual_seed(0)
    layer = IBN(6).train()
    maps = torch.randn(4, 6, 5, 3)
    found = layer(maps)
    first = (maps[:, :3] - maps[:, :3].mean((2, 3), True)) / (
        maps[:, :3].var((2, 3), False, keepdim=True) + 1e-5
    ).sqrt()
    rest = maps[:, 3:]
    second = (rest - rest.mean((0, 2, 3), True)) / (rest.var((0, 2, 3), False, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(found, torch.cat([first, second], 1), rtol=1e-4, atol=1e-5)
    assert {name for name in norm_names(layer) if "running" in name} == {"BN.running_mean", "BN.running_var"}


def test_last_stride_of_mobilenet() -> None:
    coarse, fine = build_trunk("mobilenet_v2").eval(), build_trunk("mobilenet_v2", 1).eval()
    with torch.inference_mode():
        assert coarse(images()).shape[2:] == (2, 1) and fine(images()).shape[2:] == (4, 2)


PAGE = Path(__file__).parents[2] / "docs" / "backbones.md"


@pytest.mark.parametrize("name", list(TRUNKS))
def test_the_table_of_the_page_is_correct(name: str) -> None:
    (row,) = re.findall(rf"^\| `{name}` \| ([\d,]+) \| (\d+) \|", PAGE.read_text(), re.MULTILINE)
    with torch.device("meta"):
        trunk = build_trunk(name)
    assert row == (f"{count(trunk):,}", str(trunk.out_channels))


# timm

CNNS = ("timm:test_efficientnet", "timm:test_convnext", "timm:test_resnet")


@pytest.mark.parametrize("name", [*CNNS, "timm:test_vit"])
def test_features_are_timm_s(name: str) -> None:
    timm = pytest.importorskip("timm")
    trunk = build_trunk(name, size=SIZE).eval()
    options = {"img_size": SIZE} if "vit" in name else {}
    network = timm.create_model(name.removeprefix("timm:"), num_classes=0, **options).eval()
    network.load_state_dict(trunk.named.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(trunk(images()).mean(dim=(2, 3)), network(images()))
        maps = build_trunk(name, size=SIZE, pooling="avg").eval()
        maps.named.load_state_dict(trunk.named.state_dict())
        found = maps(images())
    assert found.dim() == 4 and found.shape[:2] == (2, maps.out_channels) and found.shape[2] == 2 * found.shape[3]


def test_patches_keep_their_positions() -> None:
    """A ViT's feature map contains at each position the token of that patch."""
    pytest.importorskip("timm")
    trunk = build_trunk("timm:test_vit", size=SIZE, pooling="avg").eval()
    with torch.inference_mode():
        tokens = trunk.network(images())
        maps = trunk(images())
    assert maps.shape == (2, 64, 4, 2)
    assert torch.equal(maps[1, :, 3, 0], tokens[1, 1 + 3 * 2 + 0])


def test_windows_in_any_size() -> None:
    timm = pytest.importorskip("timm")
    from timm.models.swin_transformer import SwinTransformer

    def swin_of_this_test(pretrained: bool = False, pretrained_cfg: Any = None, **options: Any) -> nn.Module:
        options.pop("pretrained_cfg_overlay", None), options.pop("cache_dir", None)
        return SwinTransformer(embed_dim=12, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1), drop_path_rate=0.5, **options)

    timm.models.register_model(swin_of_this_test)
    pooled, maps = (build_trunk("timm:swin_of_this_test", size=SIZE, pooling=pooling) for pooling in ("auto", "avg"))
    maps.load_state_dict(pooled.state_dict())
    with torch.inference_mode():
        expected = pooled.eval()(images()).flatten(1)
        found = maps.eval()(images())
    assert found.shape == (2, 96, 2, 1)
    torch.testing.assert_close(found.mean(dim=(2, 3)), expected)
    assert torch.equal(maps.train()(images()), maps(images())), "drop path is off"


def test_overlapping_patches() -> None:
    pytest.importorskip("timm")
    trunk = build_trunk("timm:vit_tiny_patch16_224", size=(256, 128), patch_stride=12, pooling="avg")
    assert trunk.network.pos_embed.shape == (1, 1 + 21 * 10, 192)  # the grid of TransReID's Table 1
    with torch.inference_mode():
        assert trunk.eval()(torch.zeros(1, 3, 256, 128)).shape == (1, 192, 21, 10)


def vit_file(grid: tuple[int, int], prefix: str = "") -> dict[str, Tensor]:
    """Returns a ViT's weights with a position embedding that increases from the top to the bottom of the image."""
    size = (16 * grid[0], 16 * grid[1])
    state = build_trunk("timm:test_vit", size=size).named.state_dict()
    ramp = torch.linspace(-1, 1, grid[0])[:, None].expand(grid).reshape(1, -1, 1)
    state["pos_embed"] = torch.cat([torch.full((1, 1, 64), 5.0), ramp.expand(1, -1, 64)], 1)
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize("grid", [(14, 14), (16, 8)])
def test_position_embeddings_are_resized(grid: tuple[int, int]) -> None:
    pytest.importorskip("timm")
    model = backbone("timm:test_vit")
    line = load_weights(model, vit_file(grid, "base."), "model.weights=w", "timm:test_vit")
    assert f"resized from {grid[0]} x {grid[1]} to 4 x 2" in line and "all tensors are used" in line
    embedding = model.trunk.network.pos_embed.detach()[0]
    assert torch.equal(embedding[0], torch.full((64,), 5.0))
    rows = embedding[1:].reshape(4, 2, 64)
    torch.testing.assert_close(rows[:, 0], rows[:, 1])  # constant from left to right
    heights = torch.nn.functional.adaptive_avg_pool1d(torch.linspace(-1, 1, grid[0])[None], 4)[0]
    torch.testing.assert_close(rows[:, 0, 0], heights, rtol=0, atol=0.12)


def test_a_position_embedding_of_an_unknown_grid_is_refused() -> None:
    pytest.importorskip("timm")
    state = build_trunk("timm:test_vit", size=(48, 32)).named.state_dict()  # 3 x 2 patches
    with pytest.raises(FedReIDError, match="has 7 tokens, which form neither a square nor a 2:1 grid"):
        load_weights(backbone("timm:test_vit"), state, "model.weights=w", "timm:test_vit")


# pooling


def test_gem_by_hand() -> None:
    maps = torch.rand(2, 3, 4, 2, dtype=torch.float64) + 0.1
    found = GeMPooling(3.0)(maps)
    for image in range(2):
        for channel in range(3):
            values = [float(value) ** 3 for value in maps[image, channel].flatten()]
            assert found[image, channel].item() == pytest.approx((sum(values) / 8) ** (1 / 3), rel=1e-6)
    torch.testing.assert_close(GeMPooling(1.0)(maps), maps.mean(dim=(2, 3)))
    assert torch.autograd.gradcheck(GeMPooling(2.5).double(), (maps.clone().requires_grad_(),))


def test_gem_in_a_backbone_and_in_files() -> None:
    model = backbone("small", pooling="gem")
    assert "pooling.p" in model.state_dict() and "pooling.p" not in backbone("small").state_dict()
    state = {f"backbone.{key}": value for key, value in build_trunk("small").state_dict().items()}
    line = load_weights(model, {**state, "heads.pool_layer.p": torch.tensor([4.5])}, "f", "small")
    assert model.pooling.p.item() == 4.5 and "the small trunk and the power of the pooling" in line
    line = load_weights(backbone("small"), {**state, "heads.pool_layer.p": torch.tensor([4.5])}, "f", "small")
    assert "1 tensors are not used (heads.pool_layer.p)" in line


# backbones in federations

KINDS = (
    *("resnet18_ibn_a", "mobilenet_v2", "osnet_x0_25", "osnet_ain_x0_25", "timm:test_vit"),
    *("timm:test_efficientnet", "timm:test_convnext"),
)


@pytest.mark.parametrize("name", KINDS)
def test_training_changes_every_parameter_and_statistics_can_be_estimated(name: str) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    model = backbone(name, neck="bnneck", pooling="gem")
    (model.train()(images(6)) * torch.randn(6, model.feature_dim)).sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key
    moving = [key for key in norm_names(model) if key.endswith("running_mean")]
    assert "bottleneck.running_mean" in moving
    before = {key: value.clone() for key, value in model.state_dict().items()}
    recalibrate(model, [images(6)])
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert set(moving) <= changed <= {key for key in norm_names(model) if "running" in key}
    kept = exchanged_names(model, keep=["bottleneck.*"], norms=False)
    assert kept and kept.isdisjoint(norm_names(model)) and all(key.startswith(("trunk.", "pooling.")) for key in kept)


# a custom network

OWN = """
import torch
from torch import nn
def tiny():
    return nn.Sequential(nn.Conv2d(3, 7, 3, stride=4), nn.BatchNorm2d(7), nn.ReLU())
def pooled():
    return nn.Sequential(tiny(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
def broken():
    raise ValueError("no such thing")
def nothing():
    return 3
def parameterless():
    return nn.AvgPool2d(4)
def tokens():
    return nn.Sequential(nn.Conv2d(3, 7, 3), nn.Flatten(2))
number = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Creates a working directory with a module."""
    (tmp_path / "networks_of_this_test.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "networks_of_this_test", raising=False)
    return tmp_path


@pytest.mark.parametrize("callable", ["tiny", "pooled"])
def test_a_custom_network(own: Path, callable: str) -> None:
    path = f"networks_of_this_test:{callable}"
    trust(path)
    before = list(sys.path)
    model = backbone(path)
    assert sys.path == before
    assert model.trunk.out_channels == 7 and model(images()).shape == (2, 512)
    state = {f"net.{key}": value + 1 for key, value in model.trunk.named.state_dict().items()}
    assert "loaded the networks_of_this_test" in load_weights(model, state, "f", path)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("networks_of_this_test:broken", "raises ValueError (no such thing)"),
        ("networks_of_this_test:nothing", "returns int, no torch.nn.Module"),
        ("networks_of_this_test:number", "is int, no function or class"),
        ("networks_of_this_test:missing", "cannot be imported (module 'networks_of_this_test' has no attribute"),
        ("no_such_module_here:build", "cannot be imported (No module named 'no_such_module_here')"),
        ("networks_of_this_test:parameterless", "returns [1, 3, 16, 8] for one image and has 0 parameters"),
        ("networks_of_this_test:tokens", "returns [1, 7, 1860] for one image"),
    ],
)
def test_an_invalid_backbone_is_refused(own: Path, path: str, words: str) -> None:
    trust(path)
    with pytest.raises(FedReIDError) as caught:
        backbone(path)
    assert str(caught.value).startswith(f"model.name={path}: ") and words in str(caught.value)


def test_only_code_that_the_user_has_named_is_imported(own: Path) -> None:
    with pytest.raises(FedReIDError, match="in a run's folder or in a message, and no code is loaded from there"):
        backbone("networks_of_this_test:unheard_of")
    assert "networks_of_this_test" not in sys.modules
    trust("os.system")  # not an import path
    assert not is_trusted("os.system")


# refusals


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("osnet_x1_0", {"last_stride": 1}, "model.last_stride=1: cannot be set for model.name=osnet_x1_0"),
        ("convnext_tiny", {"last_stride": 1}, "cannot be set for model.name=convnext_tiny"),
        ("timm:test_vit", {"last_stride": 1}, "cannot be set for model.name=timm:test_vit"),
        ("resnet50", {"patch_stride": 12}, "model.patch_stride=12: can be set for ViTs of timm only"),
        ("timm:test_convnext", {"patch_stride": 12}, "can be set for ViTs of timm only"),
        ("timm:test_vit", {"patch_stride": 17}, "must be at most the size of a patch, 16"),
        ("timm:test_vitt", {}, "timm has no such network, did you mean 'test_vit"),
        ("timm:hf-hub:somebody/network", {}, "timm has no such network"),
        ("timm:local-dir:/tmp", {}, "timm has no such network"),
        ("osnet_x1_1", {}, "no such backbone, did you mean 'osnet_x1_0'"),
    ],
)
def test_options_without_effect_are_refused(name: str, options: dict[str, Any], words: str) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    with pytest.raises(FedReIDError) as caught:
        backbone(name, **options)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_images_too_small_for_a_vit_are_refused() -> None:
    pytest.importorskip("timm")
    with pytest.raises(FedReIDError, match="of 8 x 8 pixels"):
        build_trunk("timm:test_vit", size=(8, 8))


@pytest.mark.parametrize(("name", "size"), [("convnext_tiny", (32, 16)), ("osnet_ain_x0_25", (16, 16))])
def test_images_too_small_for_a_network_are_refused(name: str, size: tuple[int, int]) -> None:
    words = f"model.name={name}: cannot process an image of {size[0]} x {size[1]} pixels"
    with pytest.raises(FedReIDError, match=words):
        build_trunk(name, size=size)
    torch.manual_seed(5)
    build_trunk("small", size=size)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    build_trunk("small")
    assert torch.equal(torch.rand(3), drawn), "the check of the size draws no random numbers"


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(FedReIDError, match=r"needs timm: pip install 'fedreid-pl\[timm\]'"):
        build_trunk("timm:resnet50")


@pytest.mark.parametrize("name", ["osnet_x1_0", "resnet50_ibn_a"])
def test_weights_without_an_address(name: str) -> None:
    with pytest.raises(FedReIDError, match=f"no ImageNet weights are known for {name}; give a file"):
        build_backbone(ModelConfig(name=name, weights="imagenet"))
