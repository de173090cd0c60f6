"""DACS's client half: the losses of each part, its saved state, and equality with FedPav at weight 0."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import step_parts
import support
import torch
from torch import Tensor
from torch.nn import functional as F

from fedreid_pl.callbacks.dacs import DACS
from fedreid_pl.client import ReIDClient
from fedreid_pl.config import compose
from fedreid_pl.errors import FedReIDError
from fedreid_pl.experiment import train
from fedreid_pl.federation.storage import read_state

TRAINER: Any = SimpleNamespace(datamodule=SimpleNamespace(config=SimpleNamespace(height=64, width=32)))


def begun(round: int = 2, kept: Any = None, loss: Any = None, **options: Any) -> tuple[DACS, ReIDClient]:
    """Returns a callback in a client's turn before its first step, without dropout."""
    callback = DACS(**options)
    if kept is not None:
        callback.load_client_state_dict(kept)
    client = step_parts.make_client(callback, dropout=0.0, job=support.fit_job(round, "a"), **(loss or {}))
    callback.setup(TRAINER, client, "fit")
    return callback, client


def entropy(logits: Tensor) -> Tensor:
    p = logits.softmax(1)
    return -(p * p.log()).sum(1).mean()


@pytest.mark.parametrize("code", [False, True])
def test_a_step_minimises_the_sum_written_out(code: bool) -> None:
    options = {"style_statistics": "variance", "least_probability": 1e-6} if code else {}
    callback, client = begun(weight=0.5, diversity=2.0, authenticity=3.0, **options)
    style, batch = callback._stylist.style, step_parts.make_batch()
    assert style is not None
    loss = client.training_step(batch, 0)
    model = step_parts.make_client(dropout=0.0)  # g and l start with the same weights
    x = batch.images
    mean, variance = x.mean(dim=(2, 3), keepdim=True), x.var(dim=(2, 3), correction=0, keepdim=True)
    view = style.scale * (x - mean) / variance.sqrt() + style.shift
    task = [F.cross_entropy(model.logits(images), batch.labels) for images in (x, x, view)]
    own, other = (variance, style.scale**2) if code else (variance.sqrt(), style.scale)
    distance = ((mean - style.shift) ** 2).mean() + ((own - other) ** 2).mean()
    # g has processed x and x' before it is frozen, l only x
    judge, expert = (step_parts.make_client(dropout=0.0) for _ in range(2))
    judge.logits(x), judge.logits(view), expert.logits(x)
    judge.eval(), expert.eval()
    first, second, third = (entropy(z) for z in (judge.logits(x), judge.logits(view), expert.logits(view)))
    uncertain = F.softplus(first - second) + F.softplus(second - third)
    wanted = task[0] + task[1] + 0.5 * task[2] + 2 * distance + 3 * uncertain
    torch.testing.assert_close(loss, wanted, rtol=1e-4, atol=1e-5)


def gradients(client: ReIDClient, batch: Any) -> dict[str, Tensor | None]:
    client.zero_grad(set_to_none=True)
    client.training_step(batch, 0).backward()
    return {name: None if value.grad is None else value.grad.clone() for name, value in client.named_parameters()}


def test_every_part_is_trained_only_by_its_own_losses() -> None:
    batch = step_parts.make_batch()
    plain = gradients(step_parts.make_client(dropout=0.0), batch)
    _, client = begun(weight=0.0, diversity=1.0, authenticity=5.0)
    for name, value in gradients(client, batch).items():
        assert value is not None and value.isfinite().all(), name
        if not name.startswith("clones"):
            wanted = plain[name]
            assert wanted is not None
            torch.testing.assert_close(value, wanted, msg=f"{name}: neither L_au nor the expert trains g or the head")
    experts = {
        name.removeprefix("clones.0."): value
        for name, value in gradients(begun()[1], batch).items()
        if "clones.0" in name
    }
    assert len(experts) > 20
    for name, value in experts.items():
        torch.testing.assert_close(value, plain[f"backbone.{name}"], msg=f"{name}: the expert is trained only on x")


def test_the_transformation_changes_the_images_style_within_the_uncertainty() -> None:
    batch = step_parts.make_batch()
    away, held = begun(weight=0.0, authenticity=0.0), begun(weight=0.0, diversity=0.0)
    style = away[0]._stylist.style
    assert style is not None
    found = gradients(away[1], batch)["clones.1.shift"]
    mean = batch.images.mean(dim=(2, 3), keepdim=True)
    count = len(batch.images) * 3 * 64 * 32
    torch.testing.assert_close(found, 2 * ((mean - style.shift).sum(0)) / count, rtol=1e-3, atol=1e-8)
    assert gradients(held[1], batch)["clones.1.shift"].any()  # type: ignore[union-attr]


def test_before_its_first_round_the_transformation_is_not_used_and_the_expert_is() -> None:
    callback, client = begun(round=1)
    assert callback._stylist.style is None
    assert set(callback.client_state_dict()) == {"expert"}
    loss = client.training_step(step_parts.make_batch(), 0)
    one = step_parts.make_client(dropout=0.0).training_step(step_parts.make_batch(), 0)
    torch.testing.assert_close(loss, 2 * one)


def test_the_next_turn_loads_both_parts() -> None:
    callback, client = begun()
    with torch.no_grad():
        for value in client.clones.parameters():
            value.add_(1)
    kept = callback.client_state_dict()
    again, _ = begun(kept=kept)
    support.assert_equal(again.client_state_dict(), kept)
    skipped, _ = begun(round=1, kept=kept)
    support.assert_equal(skipped.client_state_dict()["style"], kept["style"])


@pytest.mark.parametrize("size", [1, 2, 7])
def test_batches_of_any_size(size: int) -> None:
    _, client = begun(loss={"triplet": 1.0})
    for layer in client.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.eval()  # needs more than one image
    found = gradients(client, step_parts.make_batch(size))
    assert all(value is not None and value.isfinite().all() for value in found.values())
    assert client.backbone.bottleneck.training, "layers frozen for L_au are in train mode again"


def test_with_weights_of_zero_the_federated_model_equals_fedpavs_to_the_bit(tiny_root: Path, tmp_path: Path) -> None:
    def run(name: str, *words: str) -> Any:
        more = ("trainer.accelerator=cpu", "rounds=2", f"data.datasets=[{support.TINY[1]}]", *words)
        return train(compose(support.quick(tiny_root, tmp_path / name, *more)), tmp_path / name).context.models[
            "global"
        ]

    zeros = [f"callbacks.dacs.{option}=0" for option in ("weight", "diversity", "authenticity")]
    wanted = run("fedpav", "exp=fedpav")
    support.assert_equal(run("zero", "exp=dacs", *zeros), wanted)
    more = run("more", "exp=dacs")
    assert list(more) == list(wanted) and not torch.equal(more["bottleneck.0.weight"], wanted["bottleneck.0.weight"])
    (path,) = (tmp_path / "more").rglob("clients/*/round-00002.pt")
    kept = read_state(path)["callbacks"]["dacs"]
    assert set(kept) == {"expert", "style"} and kept["style"]["shift"].shape == (3, 64, 32)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("weight", -1.0),
        ("diversity", math.nan),
        ("authenticity", math.inf),
        ("first_round", 0),
        ("least_probability", 1.0),
    ],
)
def test_invalid_values_are_refused(option: str, value: float) -> None:
    with pytest.raises(FedReIDError, match=rf"^callbacks\.dacs\.{option}="):
        DACS(**{option: value})  # type: ignore[arg-type]


def test_a_compiled_trunk_is_refused(tiny_root: Path, tmp_path: Path) -> None:
    config = compose(support.quick(tiny_root, tmp_path, "exp=dacs", "trainer.compile=default"))
    with pytest.raises(FedReIDError, match=r"^trainer\.compile=default: callbacks\.dacs"):
        DACS().check(config, None)  # type: ignore[arg-type]
