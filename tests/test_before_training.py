"""Settings that would fail or be slow in training are refused or reported before training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedreid_pl.config import Config, DataConfig, compose
from fedreid_pl.data.samples import SampleTable
from fedreid_pl.data.scenarios import _with_two_persons
from fedreid_pl.errors import FedReIDError
from fedreid_pl.experiment import precision_warning
from fedreid_pl.reporting.wandb_names import check_wandb_names


@pytest.mark.parametrize("key", ["wandb.project", "wandb.entity"])
@pytest.mark.parametrize("name", ["a/b", "a\\b", "a#b", "a?b", "50%", "a:b", "${oc.env:HOME}", "x" * 129])
def test_names_that_wandb_refuses(key: str, name: str) -> None:
    with pytest.raises(FedReIDError, match=r"wandb (does not allow|allows at most)"):
        check_wandb_names(compose([f"{key}={name}"]))
    check_wandb_names(compose([f"{key}={name}", "logger=csv"]))
    check_wandb_names(compose([f"{key}=a-b_c.1 é"]))


def test_a_project_from_the_environment_or_the_data_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "team/project")
    with pytest.raises(FedReIDError, match="WANDB_PROJECT=team/project"):
        check_wandb_names(Config())
    monkeypatch.delenv("WANDB_PROJECT")
    with pytest.raises(FedReIDError, match=r"data\.name gives"):
        check_wandb_names(compose(["data.name=a:b"]))


def test_a_mode_that_wandb_does_not_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offlien")
    with pytest.raises(FedReIDError, match="WANDB_MODE=offlien: choose online, offline or disabled"):
        check_wandb_names(Config())
    check_wandb_names(compose(["logger=csv"]))
    for mode in ("", "online", "offline", "disabled"):
        monkeypatch.setenv("WANDB_MODE", mode)
        check_wandb_names(Config())


def part(*persons: int) -> SampleTable:
    size = len(persons)
    paths = tuple(f"{row}.jpg" for row in range(size))
    return SampleTable(
        "set", Path("/"), paths, np.array(persons), np.zeros(size, dtype=np.int64), np.array(["train"] * size)
    )


@pytest.mark.parametrize("scenario", ["by_camera", "by_identity"])
def test_a_client_with_a_single_person_is_skipped_with_a_message(scenario: str) -> None:
    config = DataConfig(scenario=scenario)
    parts = [("a", "set", part(1, 2, 2)), ("b", "set", part(3, 3))]
    kept, lines = _with_two_persons(config, parts)
    assert [name for name, _, _ in kept] == ["a"]
    assert len(lines) == 1 and lines[0].startswith("client b is left out")
    with pytest.raises(FedReIDError, match="by_dataset"):
        _with_two_persons(config, parts[1:])


@pytest.mark.parametrize("able", [False, True])
def test_bfloat16_on_a_processor_without_it(able: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": able})
    config = compose(["trainer.accelerator=cpu"])
    slow = replace(config, trainer=replace(config.trainer, precision="bf16-mixed"))
    assert precision_warning(config) == ""
    assert ("trainer.precision=auto" in precision_warning(slow)) != able
