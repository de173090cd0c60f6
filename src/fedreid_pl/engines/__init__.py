"""Engines, where clients' jobs run: one module each, whose name is the configuration's `engine`."""

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
    """Nobody wants to know."""


@dataclass(frozen=True)
class EngineParts:
    """What an engine may be made of.

    Args:
        config: the experiment; `engine` says which engine and how.
        folder: the run's; `clients.build_worker` makes an equal worker from these two in another process.
        worker: the one of this process.
        announce: to be called with a job before its client begins.
        deliver: to be called with every look that comes back beside an update.
        world: number of processes that run the loop in lockstep.
        measure: to be called with what the engine has measured: name, metric and value, see `Costs.measure`.
        data: what this process has read.
        started: what `start_engine` of the engine's module returned, if it was called.
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
    """The engine that the configuration names, made by `make_engine` of the module `engines.NAME`."""
    return _module(parts.config).make_engine(parts)


def check_engine(config: Config) -> None:
    """Refuses what the engine cannot run; `check_engine` of its module says so, if it has one.

    Raises:
        FedReIDError: naming the key.
    """
    getattr(_module(config), "check_engine", _ignore)(config)


def trains_here(config: Config) -> bool:
    """Whether clients train in this process; `TRAINS_HERE` of the engine's module says so, `True` without one."""
    return getattr(_module(config), "TRAINS_HERE", True)


def on_driver(config: Config) -> Config:
    """Returns the configuration for a process that trains nothing: it needs no GPU, although its clients may."""
    wanted = config.trainer.accelerator in ("gpu", "cuda")
    if trains_here(config) or not wanted or torch.cuda.is_available():
        return config
    return replace(config, trainer=replace(config.trainer, accelerator="cpu"))


@contextmanager
def started_engine(config: Config) -> Iterator[Any]:
    """Starts what takes time, by `start_engine` of the engine's module if it has one, and closes it at the end."""
    started = getattr(_module(config), "start_engine", _ignore)(config)
    try:
        yield started
    finally:
        if started is not None:
            started.close()


def _module(config: Config) -> Any:
    return importlib.import_module(f"{__name__}.{config.engine.name}")
