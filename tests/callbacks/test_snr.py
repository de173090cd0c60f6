"""SNR's client half, and a trained model with its layers: loaded, embedded, exported."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import step_parts
import support
import torch
from torch import Tensor
from torch.nn import functional as F

import fedreid_pl
from fedreid_pl.callbacks.snr import SNR
from fedreid_pl.client import ReIDClient
from fedreid_pl.config import ModelConfig, OptimConfig, compose
from fedreid_pl.errors import FedReIDError
from fedreid_pl.experiment import train
from fedreid_pl.federation.callback import step_hooks
from fedreid_pl.federation.storage import read_state
from fedreid_pl.models.embedder import Embedder
from fedreid_pl.models.ide import build_head
from fedreid_pl.models.weights import build_backbone
from fedreid_pl.retrieval.export import export


def begun(kept: Any = None, stages: int = 2, **options: Any) -> tuple[SNR, ReIDClient]:
    """Returns a callback in a client's turn before its first step, without dropout."""
    callback = SNR(**options)
    if kept is not None:
        callback.load_client_state_dict(kept)
    model = ModelConfig(name="small", weights="none", feature_dim=16, dropout=0.0, snr_stages=stages)
    head = build_head(16, step_parts.IDENTITIES, torch.Generator().manual_seed(1))
    client = ReIDClient(build_backbone(model), head, OptimConfig(), seed=5, **step_hooks({"snr": callback})).train()
    callback.setup(None, client, "fit")  # type: ignore[arg-type]
    callback.on_train_start(None, client)  # type: ignore[arg-type]
    return callback, client


def entropy(logits: Tensor) -> Tensor:
    p = logits.softmax(1)
    return -(p * p.log()).sum(1).mean()


def test_a_step_adds_the_loss_of_every_stage() -> None:
    callback, client = begun(weight=0.5)
    assert callback._classifiers is not None
    for value in callback._classifiers.parameters():
        torch.nn.init.normal_(value, generator=torch.Generator().manual_seed(3))
    batch, plain = step_parts.make_batch(), begun(weight=0.0)[1]
    loss = client.training_step(batch, 0)
    wanted = F.cross_entropy(plain.logits(batch.images), batch.labels)
    again = begun(weight=0.0)[1]
    trunk = again.backbone.trunk
    maps = trunk.stem(batch.images)
    for stage in (0, 1):
        before = trunk.stages[stage]._forward_hooks.copy()
        trunk.stages[stage]._forward_hooks.clear()
        maps = trunk.stages[stage](maps)
        trunk.stages[stage]._forward_hooks.update(before)
        layer = again.backbone.restitution[stage]
        layer.watched = True
        maps = layer(maps)
        kept, normal, dropped = (
            entropy(callback._classifiers[stage](part.mean(dim=(2, 3))))
            for part in (layer.parts.kept, layer.parts.normal, layer.parts.dropped)
        )
        wanted = wanted + 0.5 * (F.softplus(kept - normal) + F.softplus(normal - dropped))
    torch.testing.assert_close(loss, wanted, rtol=1e-4, atol=1e-5)
    loss.backward()
    assert all(value.grad is not None for value in client.parameters())
    callback.on_train_end(None, client)  # type: ignore[arg-type]
    assert all(layer.parts is None and not layer.watched for layer in client.backbone.restitution)


def test_a_second_pass_does_not_change_the_steps_parts() -> None:
    callback, client = begun()
    client.training_step(step_parts.make_batch(), 0)
    one = callback._classifiers
    client.second_pass(step_parts.make_batch(seed=9).images)
    assert callback._parts == [] and one is callback._classifiers


@pytest.mark.parametrize("size", [1, 2, 7])
def test_batches_of_any_size(size: int) -> None:
    _, client = begun(stages=3)
    for layer in client.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.eval()  # needs more than one image
    client.training_step(step_parts.make_batch(size), 0).backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in client.parameters())


def test_the_next_turn_loads_the_classifiers() -> None:
    callback, _ = begun()
    kept = callback.client_state_dict()
    with torch.no_grad():
        for value in kept["classifiers"].values():
            value.add_(1)
    again, _ = begun(kept)
    support.assert_equal(again.client_state_dict(), kept)


def run(root: Path, folder: Path, *words: str) -> Any:
    more = ("trainer.accelerator=cpu", "rounds=2", f"data.datasets=[{support.TINY[0]},{support.TINY[1]}]", *words)
    return train(compose(support.quick(root, folder, *more)), folder)


def test_weight_zero_equals_fedpav_with_the_same_network_to_the_bit(tiny_root: Path, tmp_path: Path) -> None:
    wanted = run(tiny_root, tmp_path / "fedpav", "exp=fedpav", "model.snr_stages=3").context.models["global"]
    zero = run(tiny_root, tmp_path / "zero", "exp=snr", "callbacks.snr.weight=0").context.models["global"]
    support.assert_equal(zero, wanted)
    off = run(tiny_root, tmp_path / "off", "exp=fedpav", "model.snr_stages=0").context.models["global"]
    plain = run(tiny_root, tmp_path / "plain", "exp=fedpav").context.models["global"]
    support.assert_equal(off, plain)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_a_trained_model_is_loaded_embedded_and_exported(tiny_root: Path, tmp_path: Path) -> None:
    loop = run(tiny_root, tmp_path / "run", "exp=snr")
    trained = loop.context.models["global"]
    moved = [name for name in trained if name.startswith("restitution.") and name.endswith("norm.weight")]
    assert len(moved) == 3 and all(not torch.equal(trained[name], torch.ones_like(trained[name])) for name in moved)
    model = fedreid_pl.load(tmp_path / "run")
    pictures = model.read(sorted((tiny_root / support.TINY[0] / "query").glob("*.jpg"))[:4])
    network = build_backbone(loop.context.config.model, 1, size=(64, 32)).eval()
    network.load_state_dict(trained)
    found, wanted = torch.as_tensor(model.embed(pictures)), Embedder(network)(pictures)
    torch.testing.assert_close(found, wanted.detach())
    with torch.no_grad():
        network.restitution[0].norm.weight.mul_(-3)
        assert not torch.allclose(Embedder(network)(pictures), wanted, atol=1e-2), "the layers have an effect"
    export(model, tmp_path / "m.torchscript")
    torch.testing.assert_close(
        torch.jit.load(tmp_path / "m.torchscript")(pictures), torch.as_tensor(model.embed(pictures, flip=False))
    )
    export(model, tmp_path / "m.pt2", True)
    torch.testing.assert_close(torch.export.load(tmp_path / "m.pt2").module()(pictures), found)
    onnxruntime = pytest.importorskip("onnxruntime")
    done = export(model, tmp_path / "m.onnx", flip=True, pictures=pictures)
    session = onnxruntime.InferenceSession(str(done.files[0]))
    (onnx,) = session.run(None, {"images": pictures.numpy()})
    torch.testing.assert_close(torch.from_numpy(onnx), found, rtol=1e-3, atol=1e-4)
    for path in (tmp_path / "run").rglob("clients/*/round-00002.pt"):
        assert set(read_state(path)["callbacks"]["snr"]) == {"classifiers"}


def test_a_network_without_its_layers_is_refused() -> None:
    with pytest.raises(FedReIDError, match=r"^model\.snr_stages=0: callbacks\.snr needs"):
        SNR().check(compose(["exp=snr", "model.snr_stages=0"]), None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("option", "value"), [("weight", -1.0), ("weight", math.nan), ("least_probability", 1.0)])
def test_invalid_values_are_refused(option: str, value: float) -> None:
    with pytest.raises(FedReIDError, match=rf"^callbacks\.snr\.{option}="):
        SNR(**{option: value})
