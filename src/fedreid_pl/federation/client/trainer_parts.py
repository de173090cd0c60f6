"""Parts of Lightning's Trainer that a turn does without, or with less: each costs time in every turn or batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from lightning_fabric.utilities import registry
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.strategies import SingleDeviceStrategy
from pytorch_lightning.trainer.connectors.signal_connector import _SignalConnector


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


class NoSignals(_SignalConnector):
    """Leaves signals to the program that trains.

    Lightning's own handler of SIGTERM, which is set up and taken back in every turn, starts a broadcast in whatever
    collective operation the process happens to be, and asks a scheduler to start a single turn again.
    """

    def register_signal_handlers(self) -> None:
        """None."""

    def teardown(self) -> None:
        """There is nothing to give back."""


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
