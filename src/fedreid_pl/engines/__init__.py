"""Engines, where clients' jobs run: one module each, whose name is the configuration's `engine`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fedreid_pl.config import Config
from fedreid_pl.federation.client.worker import ClientWorker, Look
from fedreid_pl.federation.engine import Engine
from fedreid_pl.federation.messages import ClientJob


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
    """

    config: Config
    folder: Path
    worker: ClientWorker
    announce: Callable[[ClientJob], None]
    deliver: Callable[[Look], None]
    world: int = 1


def build_engine(parts: EngineParts) -> Engine:
    """The engine that the configuration names, made by `make_engine` of the module `engines.NAME`."""
    return importlib.import_module(f"{__name__}.{parts.config.engine.name}").make_engine(parts)
