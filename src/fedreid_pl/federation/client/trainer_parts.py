"""Parts of Lightning's Trainer that a turn does without, or with less: each costs time in every turn or batch.

Some hang on names that Lightning keeps to itself. Where a version of Lightning lacks one of them, Lightning's own part
stays in its place, and a turn ends with the same bits (`tests/federation/client/test_private_names.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from importlib.metadata import entry_points
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.strategies import SingleDeviceStrategy

try:
    from lightning_fabric.utilities import registry
except ImportError:
    registry = None  # type: ignore[assignment]

LOOP_NAMES = (
    "_batches_that_stepped",
    "automatic_optimization",
    "batch_progress",
    "batch_idx",
    "on_run_start",
    "advance",
)
"""What `EpochLoop` uses of Lightning's loop."""


class OneProcessor(SingleDeviceStrategy):
    """Lightning's strategy for a single device, without moving to the processor what never leaves it.

    To look through the network for that, at both ends of a turn, takes as long as a batch of a small network.
    """

    def __init__(self) -> None:
        super().__init__(device="cpu")

    def model_to_device(self) -> None:
        """It is there."""

    def teardown(self) -> None:
        """What Lightning does after `fit` and `test`, but for moving network and optimizers."""
        self.precision_plugin.teardown()
        assert self.accelerator is not None
        self.accelerator.teardown()
        self.checkpoint_io.teardown()


class NoSignals:
    """Leaves signals to the program that trains.

    Lightning's own handler of SIGTERM, which is set up and taken back in every turn, starts a broadcast in whatever
    collective operation the process happens to be, and asks a scheduler to start a single turn again.
    """

    received_sigterm = False

    def register_signal_handlers(self) -> None:
        """Sets no handler."""

    def teardown(self) -> None:
        """Restores nothing."""


def use_no_signals(trainer: pl.Trainer) -> bool:
    """Takes Lightning's signal handlers out of a Trainer; returns whether this version of Lightning allows it."""
    able = _has(trainer, "_signal_connector") and all(
        _has(trainer._signal_connector, name) for name in ("register_signal_handlers", "teardown", "received_sigterm")
    )
    if able:
        trainer._signal_connector = NoSignals()  # type: ignore[assignment]
    return able


def use_epoch_loop(trainer: pl.Trainer) -> bool:
    """Gives a Trainer the lean `EpochLoop`; returns whether this version of Lightning has what the loop hangs on."""
    kind = _lean_loop()
    if kind is None or not _has(trainer, "_logger_connector") or not _has(trainer.fit_loop, "epoch_loop"):
        return False
    loop = kind(trainer)
    able = all(_has(loop, name) for name in LOOP_NAMES) and _has(loop.automatic_optimization, "optim_progress")
    if able:
        trainer.fit_loop.epoch_loop = loop
    return able


def _lean_loop() -> Any:
    try:
        from fedreid_pl.federation.client.epoch_loop import EpochLoop
    except ImportError:
        return None
    return EpochLoop


def _has(owner: object, name: str) -> bool:
    return hasattr(owner, name)


class NoProfiler(PassThroughProfiler):
    """Lightning's own makes a generator for every hook, in testing for those of every batch."""

    nothing = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager:  # type: ignore[override]
        """Measures nothing."""
        return self.nothing


@contextmanager
def plugins_once() -> Iterator[None]:
    """Lets Lightning look for plug-ins among the installed packages once, not for every turn: it takes milliseconds."""
    search = getattr(registry, "entry_points", None)
    if search is not None:
        registry.entry_points = _entry_points  # type: ignore[assignment]
    try:
        yield
    finally:
        if search is not None:
            registry.entry_points = search


@cache
def _entry_points(**selection: str) -> Any:
    return entry_points(**selection)
