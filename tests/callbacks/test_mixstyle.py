"""MixStyle's client half: mixed stages, random draws, and equality with FedPav at probability 0."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import step_parts
import support
import torch

from fedreid_pl.callbacks import mixstyle
from fedreid_pl.callbacks.mixstyle import MixStyle
from fedreid_pl.config import compose
from fedreid_pl.errors import FedReIDError
from fedreid_pl.experiment import train
from fedreid_pl.federation.messages import State
from fedreid_pl.functional.batch_part import BatchPart, working_on
from fedreid_pl.functional.mixstyle import mix_style


def started(**options: Any) -> MixStyle:
    callback = MixStyle(**options)
    callback.on_train_start(None, SimpleNamespace(seed=5))  # type: ignore[arg-type]
    return callback


def test_the_first_stages_are_mixed_with_drawn_shares_and_partners(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple] = []
    monkeypatch.setattr(mixstyle, "mix_style", lambda *given, **more: calls.append(given) or mix_style(*given, **more))
    step_parts.make_client(started(p=1.0)).training_step(step_parts.make_batch(), 0)
    assert [maps.shape[1] for maps, _, _ in calls] == [16, 32], "after the first two stages"
    for _, factors, partners in calls:
        assert sorted(partners.tolist()) == [0, 1, 2, 3, 4, 5] and factors.min() >= 0 and factors.max() <= 1
    assert not torch.equal(calls[0][1], calls[1][1]), "every stage draws separately"


def test_draws_follow_the_beta_distribution_and_the_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[torch.Tensor] = []
    monkeypatch.setattr(mixstyle, "mix_style", lambda maps, factors, *rest, **more: calls.append(factors) or maps)
    callback, maps = started(p=0.5, alpha=0.1), torch.zeros(10, 1, 1, 1)
    for _ in range(1000):
        callback.feature_maps(None, None, 0, maps)  # type: ignore[arg-type]
    drawn = torch.cat(calls)
    assert abs(len(calls) - 500) < 5 * math.sqrt(250)
    # Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1))
    assert abs(float(drawn.mean()) - 0.5) < 0.03 and abs(float(drawn.var()) - 1 / 4.8) < 0.01


def test_parts_of_a_batch_get_the_draws_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixstyle, "mix_style", lambda maps, factors, partners, **more: (factors, partners))
    maps, places = torch.zeros(7, 2, 1, 1), ((0, 2, 4, 6), (1, 3, 5))
    whole: Any = started(p=1.0).feature_maps(None, None, 0, maps)  # type: ignore[arg-type]
    for own in places:
        with working_on(BatchPart(own, 7)):
            part: Any = started(p=1.0).feature_maps(None, None, 0, maps[list(own)])  # type: ignore[arg-type]
        assert all(torch.equal(mine, all_[list(own)]) for mine, all_ in zip(part, whole, strict=True))


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("trunk", ["small", "resnet18", "osnet_x0_25"])
def test_batches_of_any_size_on_every_network_with_stages(trunk: str, size: int) -> None:
    client = step_parts.make_client(started(p=1.0), trunk=trunk)
    for layer in client.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.eval()  # needs more than one image
    loss = client.training_step(step_parts.make_batch(size), 0)
    loss.backward()
    assert math.isfinite(loss.item()) and all(value.grad is not None for value in client.parameters())


def one_round(root: Path, folder: Path, *words: str) -> State:
    more = ("trainer.accelerator=cpu", "rounds=1", f"data.datasets=[{support.TINY[1]}]", *words)
    return train(compose(support.quick(root, folder, *more)), folder).context.models["global"]


def test_probability_zero_is_fedpav_to_the_bit(tiny_root: Path, tmp_path: Path) -> None:
    wanted = one_round(tiny_root, tmp_path / "fedpav", "exp=fedpav")
    zero = one_round(tiny_root, tmp_path / "zero", "exp=mixstyle", "callbacks.mixstyle.p=0")
    more = one_round(tiny_root, tmp_path / "more", "exp=mixstyle", "callbacks.mixstyle.p=1")
    support.assert_equal(zero, wanted)
    assert list(more) == list(wanted), "no additional entry"
    assert not torch.equal(more["bottleneck.0.weight"], wanted["bottleneck.0.weight"])


@pytest.mark.parametrize(
    ("option", "value"), [("p", 1.1), ("p", math.nan), ("alpha", 0.0), ("alpha", math.inf), ("stages", 0)]
)
def test_invalid_values_are_refused(option: str, value: float) -> None:
    with pytest.raises(FedReIDError, match=rf"^callbacks\.mixstyle\.{option}="):
        MixStyle(**{option: value})  # type: ignore[arg-type]
