"""A federation across parties: the loop at a coordinator, each client at a silo of its own.

`coordinator.py` is the engine, `service.py` what a silo runs. Between them travel signed payloads (`payload.py`) over a
transport that knows bytes and names of silos alone (`transport.py`).
"""

from __future__ import annotations

from fedreid_pl.engines import EngineParts
from fedreid_pl.engines.sequential import SequentialEngine


def make_engine(parts: EngineParts) -> SequentialEngine:
    """Returns the sequential engine: `evaluate` and `report` use it for pictures that are on this machine.

    `train engine=silos` makes a `coordinator.SilosEngine` in `fedreid_pl.coordination`.
    """
    return SequentialEngine(parts.worker, parts.announce, parts.deliver, parts.world)
