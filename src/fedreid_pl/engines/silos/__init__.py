"""A federation across parties: the coordinator runs the loop, and each client trains at its own silo.

`coordinator.py` is the engine, and a silo runs `service.py`. They exchange signed payloads (`payload.py`) over a
transport (`transport.py`), which knows only bytes and the names of silos.
"""

from __future__ import annotations

import os

from fedreid_pl.engines import EngineParts
from fedreid_pl.engines.sequential import SequentialEngine

# gRPC prints lines of its own before an error; this program prints the error. Set before the first import of grpc.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def make_engine(parts: EngineParts) -> SequentialEngine:
    """Returns the sequential engine: `evaluate` and `report` use it for pictures on this machine.

    `train engine=silos` makes a `coordinator.SilosEngine` in `fedreid_pl.coordination`.
    """
    return SequentialEngine(parts.worker, parts.announce, parts.deliver, parts.world)
