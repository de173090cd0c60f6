"""The Ray engine: trains clients in parallel on this machine, or on a cluster whose machines trust each other."""

from __future__ import annotations

from typing import Any

from fedreid_pl.config import Config
from fedreid_pl.engines import EngineParts
from fedreid_pl.engines.ray.cluster import Cluster, check

TRAINS_HERE = False
"""The driver's own process trains no client."""


def check_engine(config: Config) -> None:
    """Checks that this engine can run the configuration.

    Raises:
        FedReIDError: if it cannot; the message names the key.
    """
    check(config)


def start_engine(config: Config) -> Cluster:
    """Starts Ray in a thread, while the caller reads data, and returns the cluster; the caller closes the cluster."""
    return Cluster(config)


def make_engine(parts: EngineParts) -> Any:
    """Returns the engine of a run, with at least one slot ready."""
    from fedreid_pl.engines.ray.engine import RayEngine

    engine = RayEngine(parts, parts.started or Cluster(parts.config))
    try:
        engine.open()
    except BaseException:
        engine.close()
        raise
    return engine
