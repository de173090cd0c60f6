"""Clients in parallel on Ray: on this machine, or on the machines of one cluster, which trust each other."""

from __future__ import annotations

from typing import Any

from fedreid_pl.config import Config
from fedreid_pl.engines import EngineParts
from fedreid_pl.engines.ray.cluster import Cluster, check

TRAINS_HERE = False
"""The driver's own process trains no client."""


def check_engine(config: Config) -> None:
    """Refuses what this engine cannot run.

    Raises:
        FedReIDError: naming the key.
    """
    check(config)


def start_engine(config: Config) -> Cluster:
    """Begins to start Ray, while the caller reads data; whoever calls it closes what it returns."""
    return Cluster(config)


def make_engine(parts: EngineParts) -> Any:
    """The engine of a run."""
    from fedreid_pl.engines.ray.engine import RayEngine

    engine = RayEngine(parts, parts.started or Cluster(parts.config))
    try:
        engine.open()
    except BaseException:
        engine.close()
        raise
    return engine
