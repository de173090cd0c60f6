"""Faster replacements for parts of Lightning's Trainer that cost time in every turn or batch.

Some of them use private names of Lightning. If a version of Lightning lacks such a name, Lightning's own part is used,
with equal results bit by bit (`tests/federation/client/test_private_names.py`).
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
"""Attributes of Lightning's loop that `EpochLoop` uses."""


class OneProcessor(SingleDeviceStrategy):
    """Lightning's strategy for a single device, for the CPU; it never moves the network between devices.

    Lightning's own strategy searches the network for tensors to move at both ends of a turn. This search takes as long
    as a batch of a small network.
    """

    def __init__(self) -> None:
        super().__init__(device="cpu")

    def model_to_device(self) -> None:
        """Does nothing: the network is always on the CPU."""

    def teardown(self) -> None:
        """Does what Lightning does after `fit` and `test`, except moving the network and the optimizers."""
        self.precision_plugin.teardown()
        assert self.accelerator is not None
        self.accelerator.teardown()
        self.checkpoint_io.teardown()


class NoSignals:
    """Leaves the handling of signals to the program that trains.

    Lightning's own handler of SIGTERM, which every turn would install and remove, starts a broadcast in the middle of
    any other collective operation, and asks a scheduler to restart a single turn.
    """

    received_sigterm = False

    def register_signal_handlers(self) -> None:
        """Installs no handler."""

    def teardown(self) -> None:
        """Removes no handler."""


def use_no_signals(trainer: pl.Trainer) -> bool:
    """Removes Lightning's signal handlers from a Trainer; returns whether this version of Lightning supports it."""
    able = _has(trainer, "_signal_connector") and all(
        _has(trainer._signal_connector, name) for name in ("register_signal_handlers", "teardown", "received_sigterm")
    )
    if able:
        trainer._signal_connector = NoSignals()  # type: ignore[assignment]
    return able


def use_epoch_loop(trainer: pl.Trainer) -> bool:
    """Gives a Trainer the faster `EpochLoop`; returns whether this version of Lightning supports it."""
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
    """Profiler that does nothing. Lightning's default profiler creates a generator for every hook of every batch."""

    nothing = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager:  # type: ignore[override]
        """Returns an empty context manager."""
        return self.nothing


@contextmanager
def plugins_once() -> Iterator[None]:
    """Makes Lightning search the installed packages for plug-ins only once, because each search takes milliseconds."""
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
