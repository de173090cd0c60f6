"""Engines run the clients' jobs. Each engine is one module; the configuration's `engine` is the name of the module."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fedreid_pl.config import Config
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.federation.client.worker import ClientWorker, Look
from fedreid_pl.federation.engine import Engine
from fedreid_pl.federation.messages import ClientJob


def _ignore(*unused: object) -> None:
    """Ignores its arguments: the default for a callable that an engine may do without."""


@dataclass(frozen=True)
class EngineParts:
    """Everything that an engine can be built from.

    Args:
        config: configuration of the experiment; its section `engine` selects and configures the engine.
        folder: folder of the run. `clients.build_worker` builds an equal worker from `config` and `folder` in
            another process.
        worker: worker of this process.
        announce: the engine calls it with a job before the client starts.
        deliver: the engine calls it with every look that a client returns with its update.
        world: number of processes that run the loop in lockstep.
        measure: the engine calls it with each measurement: name, metric and value, see `Costs.measure`.
        data: data that this process has read.
        started: return value of `start_engine` of the engine's module, if that was called.
    """

    config: Config
    folder: Path
    worker: ClientWorker
    announce: Callable[[ClientJob], None]
    deliver: Callable[[Look], None]
    world: int = 1
    measure: Callable[[str, str, float], None] = _ignore
    data: FederatedData | None = None
    started: Any = None


def build_engine(parts: EngineParts) -> Engine:
    """Returns the engine that the configuration names; `make_engine` of the module `engines.NAME` builds it."""
    return _module(parts.config).make_engine(parts)


def check_engine(config: Config) -> None:
    """Checks that the engine can run the configuration, with `check_engine` of the engine's module if that exists.

    Raises:
        FedReIDError: if the engine cannot run it; the message names the key.
    """
    getattr(_module(config), "check_engine", _ignore)(config)


def trains_here(config: Config) -> bool:
    """Returns whether clients train in this process: `TRAINS_HERE` of the engine's module, by default `True`."""
    return getattr(_module(config), "TRAINS_HERE", True)


def on_driver(config: Config) -> Config:
    """Returns the configuration of the driver's process: on the CPU if the clients train on GPUs elsewhere."""
    wanted = config.trainer.accelerator in ("gpu", "cuda")
    if trains_here(config) or not wanted or torch.cuda.is_available():
        return config
    return replace(config, trainer=replace(config.trainer, accelerator="cpu"))


@contextmanager
def started_engine(config: Config) -> Iterator[Any]:
    """Calls `start_engine` of the engine's module, if that exists, and closes the result at the end of the block."""
    started = getattr(_module(config), "start_engine", _ignore)(config)
    try:
        yield started
    finally:
        if started is not None:
            started.close()


def _module(config: Config) -> Any:
    return importlib.import_module(f"{__name__}.{config.engine.name}")
