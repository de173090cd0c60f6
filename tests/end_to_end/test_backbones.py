"""Every family of backbones in a federation: rounds, bit-identical resume, export, and algorithms that use it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import support
import torch
from torchvision.models import convnext, resnet

import fedreid_pl
from fedreid_pl.cli import main
from fedreid_pl.config import compose
from fedreid_pl.federation.storage import read_state
from fedreid_pl.retrieval.export import export
from fedreid_pl.start import initial_backbone

pytestmark = pytest.mark.system

ROUNDS = (
    *("rounds=2", "evaluate_every=2", "clients_per_round=1", "data.datasets=[mini-viper,mini-ilids]"),
    *("data.height=32", "data.width=16", "report.images=false"),
)

OWN = """
from torch import nn
def layers_without_batch_norm():
    return nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.GroupNorm(1, 8), nn.GELU(), nn.Conv2d(8, 16, 2, stride=2))
"""

CASES: dict[str, tuple[str, ...]] = {
    "resnet18": ("exp=fedpav_rw", "model.last_stride=1"),
    "resnet18_ibn_a": ("exp=fedpav", "callbacks.backbone_sync.batch_norm=local", "model.neck=bnneck"),
    "mobilenet_v2": ("exp=fedpav", "callbacks.backbone_sync.batch_norm=recalibrate", "model.pooling=gem"),
    "convnext_tiny": ("exp=fedpav", "callbacks.backbone_sync.keep=[bottleneck.*]", "data.height=64", "data.width=32"),
    "osnet_x0_25": ("exp=fedpav_kd", "optim.bottleneck=head"),
    "osnet_ain_x0_25": ("exp=ditto",),
    "timm:test_vit": ("exp=fedpav_kd_rw", "callbacks.backbone_sync.batch_norm=first"),
    "timm:test_efficientnet": ("exp=fedprox", "model.pooling=gem"),
    "timm:swin_for_a_federation": ("exp=fedpav_dp", "callbacks.differential_privacy.noise=seed"),
    "networks_for_a_federation:layers_without_batch_norm": ("exp=scaffold", "callbacks.backbone_sync.batch_norm=local"),
}


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Creates a working directory with a custom network, and thin versions of large backbones."""

    def thin_resnet(weights: Any = None) -> torch.nn.Module:
        return resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1])

    def thin_convnext(weights: Any = None, **options: Any) -> torch.nn.Module:
        blocks = [(8, 16), (16, 24), (24, 32), (32, None)]
        return convnext.ConvNeXt([convnext.CNBlockConfig(inputs, outputs, 1) for inputs, outputs in blocks], **options)

    monkeypatch.setattr(resnet, "resnet18", thin_resnet)
    monkeypatch.setattr(convnext, "convnext_tiny", thin_convnext)
    (tmp_path / "networks_for_a_federation.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "networks_for_a_federation", raising=False)
    return tmp_path


def swin_for_a_federation(pretrained: bool = False, pretrained_cfg: Any = None, **options: Any) -> torch.nn.Module:
    """Returns a thin Swin."""
    from timm.models.swin_transformer import SwinTransformer

    options = {name: value for name, value in options.items() if name in ("img_size", "num_classes", "global_pool")}
    return SwinTransformer(embed_dim=12, depths=(1, 1), num_heads=(1, 1), window_size=4, **options)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("name", list(CASES))
def test_rounds_resume_and_export(name: str, networks: Path, tiny_root: Path, tmp_path: Path) -> None:
    if name.startswith("timm:"):
        timm = pytest.importorskip("timm")
        if not timm.is_model("swin_for_a_federation"):
            timm.models.register_model(swin_for_a_federation)
    words = [*support.quick(tiny_root, tmp_path / "run", *ROUNDS), f"model.name={name}", *CASES[name]]
    assert main(["train", *words]) == 0
    whole = read_state(tmp_path / "run" / "checkpoints" / "round-00002.ckpt")["models"]["global"]
    first = read_state(tmp_path / "run" / "checkpoints" / "round-00001.ckpt")["models"]["global"]
    assert any(not torch.equal(value, first[key]) for key, value in whole.items())
    assert all(torch.isfinite(value.float()).all() for value in whole.values())

    half = tmp_path / "half"  # as if killed after the first round
    shutil.copytree(tmp_path / "run", half)
    for file in (half / "checkpoints" / "round-00002.ckpt", *half.glob("clients/*/round-00002.pt")):
        file.unlink(missing_ok=True)
    assert main(["train", *words, f"output_dir={half}"]) == 0
    support.assert_equal(read_state(half / "checkpoints" / "round-00002.ckpt")["models"]["global"], whole)

    model = fedreid_pl.load(tmp_path / "run")
    done = export(model, tmp_path / "model.torchscript")
    assert done.agreement is not None and done.agreement > 0.9999
    weights = export(model, tmp_path / "model.safetensors").files[0]
    again = initial_backbone(compose([*words, f"model.weights={weights}"]))
    support.assert_equal(dict(again.state_dict()), dict(model.backbone.state_dict()))


def test_code_named_in_a_run_folder_is_not_imported_without_permission(
    networks: Path, tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedreid_pl.config import trusted

    name = "networks_for_a_federation:layers_without_batch_norm"
    words = support.quick(tiny_root, tmp_path / "run", *ROUNDS, "rounds=1", "exp=fedpav", f"model.name={name}")
    assert main(["train", *words]) == 0
    monkeypatch.setattr(trusted, "_TRUSTED", set())  # another process
    capsys.readouterr()
    for command in (["evaluate", f"run={tmp_path / 'run'}"], ["embed", str(tmp_path / "run"), ".", "out=f.npz"]):
        assert main(command) == 2
        message = " ".join(capsys.readouterr().err.split())
        assert f"model.name={name}: is an import path in a run's folder" in message
        assert f"add model.name={name} to the command" in message
    with pytest.raises(fedreid_pl.errors.FedReIDError, match="no code is loaded from there"):
        fedreid_pl.load(tmp_path / "run")
    assert main(["evaluate", f"run={tmp_path / 'run'}", f"model.name={name}"]) == 0
    monkeypatch.setattr(trusted, "_TRUSTED", set())
    pictures = str(tiny_root / "mini-viper" / "query")
    assert main(["embed", str(tmp_path / "run"), pictures, "out=f.npz", f"model.name={name}"]) == 0
    monkeypatch.setattr(trusted, "_TRUSTED", set())
    assert fedreid_pl.load(tmp_path / "run", network=name).card.dim == 512
