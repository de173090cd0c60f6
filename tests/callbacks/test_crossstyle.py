"""CrossStyle's client half: changed images, random draws, and equality with FedPav at probability 0."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import step_parts
import support
import torch
from torch.nn import functional as F

from fedreid_pl.callbacks import crossstyle
from fedreid_pl.callbacks.crossstyle import CrossStyle
from fedreid_pl.config import compose
from fedreid_pl.errors import FedReIDError
from fedreid_pl.experiment import train
from fedreid_pl.federation.messages import State
from fedreid_pl.functional.batch_part import BatchPart, working_on
from fedreid_pl.functional.crossstyle import Box, cross_style


def started(**options: Any) -> CrossStyle:
    callback = CrossStyle(**options)
    callback.on_train_start(None, SimpleNamespace(seed=5))  # type: ignore[arg-type]
    return callback


def spied(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """Records (images, partners, content box, style box) of every call."""
    calls: list[tuple] = []
    plain = cross_style
    monkeypatch.setattr(crossstyle, "cross_style", lambda *given, **more: calls.append(given) or plain(*given[:4]))
    return calls


def test_the_step_trains_only_on_the_changed_images(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, batch = spied(monkeypatch), step_parts.make_batch()
    loss = step_parts.make_client(started(), dropout=0.0).training_step(batch, 0)
    ((images, partners, content, style),) = calls
    assert torch.equal(images, batch.images) and sorted(partners.tolist()) == [0, 1, 2, 3, 4, 5]
    assert content != style
    view = cross_style(images, partners, content, style)
    assert not torch.equal(view, images)
    wanted = F.cross_entropy(step_parts.make_client(dropout=0.0).logits(view), batch.labels)
    torch.testing.assert_close(loss, wanted)


@pytest.mark.parametrize(
    ("crop", "whole"), [("both", ""), ("content", "style"), ("style", "content"), ("neither", "content style")]
)
def test_the_option_selects_the_cropped_images(crop: Any, whole: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, callback = spied(monkeypatch), started(crop=crop)
    for _ in range(20):
        callback.training_images(None, step_parts.make_batch())  # type: ignore[arg-type]
    for place, name in ((2, "content"), (3, "style")):
        assert all((call[place] == Box(0, 64, 0, 32)) == (name in whole) for call in calls[:1])
        assert (len({call[place] for call in calls}) == 1) == (name in whole)


def test_a_batch_is_changed_with_the_given_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, callback, batch = spied(monkeypatch), started(p=0.3), step_parts.make_batch(2)
    for _ in range(300):
        callback.training_images(None, batch)  # type: ignore[arg-type]
    assert abs(len(calls) - 90) < 5 * math.sqrt(300 * 0.3 * 0.7)


def test_parts_of_a_batch_get_the_draws_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, batch = spied(monkeypatch), step_parts.make_batch(7)
    monkeypatch.setattr(crossstyle, "cross_style", lambda *given, **more: calls.append(given) or given[0])
    started().training_images(None, batch)  # type: ignore[arg-type]
    for own in ((0, 2, 4, 6), (1, 3, 5)):
        part = BatchPart(own, 7)
        with working_on(part):
            started().training_images(None, step_parts.make_batch(7, part=part))  # type: ignore[arg-type]
        assert torch.equal(calls[-1][1], calls[0][1][list(own)]) and calls[-1][2:] == calls[0][2:]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_batches_of_any_size(size: int) -> None:
    found = started().training_images(None, step_parts.make_batch(size))  # type: ignore[arg-type]
    assert found.isfinite().all() and found.shape == (size, 3, 64, 32)


def one_round(root: Path, folder: Path, *words: str) -> State:
    more = ("trainer.accelerator=cpu", "rounds=1", f"data.datasets=[{support.TINY[1]}]", *words)
    return train(compose(support.quick(root, folder, *more)), folder).context.models["global"]


def test_probability_zero_is_fedpav_to_the_bit(tiny_root: Path, tmp_path: Path) -> None:
    wanted = one_round(tiny_root, tmp_path / "fedpav", "exp=fedpav")
    zero = one_round(tiny_root, tmp_path / "zero", "exp=crossstyle", "callbacks.crossstyle.p=0")
    more = one_round(tiny_root, tmp_path / "more", "exp=crossstyle")
    support.assert_equal(zero, wanted)
    assert list(more) == list(wanted), "no additional entry"
    assert not torch.equal(more["bottleneck.0.weight"], wanted["bottleneck.0.weight"])


@pytest.mark.parametrize(
    ("option", "value"), [("p", 1.1), ("p", math.nan), ("beta", 0.0), ("beta", math.inf), ("least_area", 0.6)]
)
def test_invalid_values_are_refused(option: str, value: float) -> None:
    with pytest.raises(FedReIDError, match=rf"^callbacks\.crossstyle\.{option}="):
        CrossStyle(**{option: value})  # type: ignore[arg-type]
