"""Parts of the Trainer that a turn skips: the results do not change."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import support
import tiny_turn
import torch
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch.utils.data import DataLoader

from fedreid_pl.client import ReIDClient
from fedreid_pl.config import compose
from fedreid_pl.experiment import train
from fedreid_pl.federation.client import trainer as trainer_module
from fedreid_pl.federation.client.trainer import build_trainer
from fedreid_pl.federation.client.trainer_parts import OneProcessor
from fedreid_pl.functional.randomness import seed_generators

FAULTS = """
import resource, sys, torch
from fedreid_pl.federation.memory import keep_freed_memory
print(keep_freed_memory() if sys.argv[1] == "keep" else None)
def batch():
    torch.ones(12 * 2**20), torch.ones(12 * 2**20)  # 48 MiB, more than glibc reuses by default
for _ in range(10):
    batch()  # warm-up
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    batch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(word: str, **environment: str) -> tuple[str, int]:
    """Returns the result of `keep_freed_memory` and the page faults of ten batches of two blocks of 48 MiB."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", FAULTS, word]
    done = subprocess.run(command, env={**own, **environment}, capture_output=True, text=True, check=True, timeout=120)
    said, count = done.stdout.split()
    return said, int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_reused() -> None:
    _, plain = faults("leave")
    said, kept = faults("keep")
    assert said == "True"
    assert plain > 10 * 2 * 48 / 2 * 0.9  # a fault for every page, even if pages are 2 MiB large
    assert kept < plain / 10


@pytest.mark.parametrize(
    "variable", [{"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}]
)
def test_variables_set_by_the_user_are_not_changed(variable: dict[str, str]) -> None:
    assert faults("keep", **variable)[0] == "False"


def test_the_trainer_installs_no_signal_handlers() -> None:
    seen = []

    class Look(pl.Callback):
        def on_train_batch_end(self, *parts: object) -> None:
            seen.append({number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)})

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    module = ReIDClient(tiny_turn.make_backbone(), tiny_turn.make_head(), tiny_turn.PLAIN)
    trainer = build_trainer(compose(["trainer.accelerator=cpu"]), [Look()])
    trainer.fit(module, DataLoader(tiny_turn.make_batches(), batch_size=None))  # type: ignore[arg-type]
    assert seen == 3 * [before]


def test_one_processor_trains_and_tests_as_lightnings_strategy_does(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose([*support.quick(tiny_root, tmp_path), "exp=fedpav", "rounds=1", "trainer.accelerator=cpu"])
    ours = train(config, tmp_path / "ours").context
    assert isinstance(build_trainer(config).strategy, OneProcessor)
    monkeypatch.setattr(trainer_module, "OneProcessor", lambda: SingleDeviceStrategy("cpu"))
    theirs = train(config, tmp_path / "theirs").context
    assert ours.history.records
    for name, value in theirs.models["global"].items():
        assert torch.equal(ours.models["global"][name], value), name
    assert ours.history.records == theirs.history.records


def test_seeds_give_torchs_draws_and_restore_the_generators() -> None:
    torch.manual_seed(2**62 + 1)
    expected = torch.rand(5)
    queued = len(torch.cuda._queued_calls)
    seed_generators(2**62 + 1)
    assert torch.equal(torch.rand(5), expected)
    assert torch.cuda.is_available() or len(torch.cuda._queued_calls) == queued
