"""What a run costs: seconds by phase, bytes by direction, peak memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

PHASES = ("fit", "aggregate", "evaluate", "checkpoint")


class Costs:
    """Sums over the run, carried over a resume."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys((*PHASES, "total"), 0.0)
        self.bytes_down = self.bytes_up = 0
        self._mark = time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the time of the block to a phase."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start

    def tick(self) -> None:
        """Adds the time since the last tick to the run's total."""
        now = time.perf_counter()
        self.seconds["total"] += now - self._mark
        self._mark = now

    def restart(self) -> None:
        """The run's clock starts now."""
        self._mark = time.perf_counter()

    def by_phase(self) -> dict[str, float]:
        """Seconds by phase; `other` is what no phase took."""
        known = sum(self.seconds[name] for name in PHASES)
        seconds = {**{name: self.seconds[name] for name in PHASES}, "other": max(self.seconds["total"] - known, 0.0)}
        seconds["total"] = self.seconds["total"]
        return {name: round(value, 3) for name, value in seconds.items()}

    def state_dict(self) -> dict[str, object]:
        """Plain values for a checkpoint."""
        self.tick()
        return {"seconds": dict(self.seconds), "bytes_down": self.bytes_down, "bytes_up": self.bytes_up}

    def load_state_dict(self, state: dict) -> None:
        """Restores the sums of a checkpoint."""
        self.seconds |= state["seconds"]
        self.bytes_down, self.bytes_up = state["bytes_down"], state["bytes_up"]


def peak_memory() -> int:
    """The largest resident size of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
