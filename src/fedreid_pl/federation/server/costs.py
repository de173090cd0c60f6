"""Measures the costs of a run: seconds by phase, bytes by direction, peak memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from fedreid_pl.federation.memory import peak_memory
from fedreid_pl.federation.server.history import History

PHASES = ("fit", "aggregate", "evaluate", "checkpoint")


class Costs:
    """Sums of the run's costs; they continue after a resume.

    Attributes:
        timings: costs of each round in section `system`: `NAME/seconds` of every phase, of `other` and of `total`, and
            peak memory. They are separate from the run's history because they depend on clock and machine: two runs
            with the same configuration differ only in these numbers.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys((*PHASES, "total"), 0.0)
        self.bytes_down = self.bytes_up = 0
        self.timings = History()
        self._closed = dict(self.seconds)
        self._measured: dict[tuple[str, str], float] = {}
        self._peak = 0
        self._mark = time.perf_counter()

    def measure(self, name: str, metric: str, value: float) -> None:
        """Adds a measurement of an engine to the current round, such as the seconds of another process.

        Seconds are summed; of other values the maximum counts. `metric` ends in `seconds` or `bytes`.
        """
        before = self._measured.get((name, metric), 0.0)
        self._measured[name, metric] = before + value if metric.endswith("seconds") else max(before, value)
        if metric == "peak_memory_bytes":
            self._peak = max(self._peak, int(value))

    @property
    def peak_memory(self) -> int:
        """Largest resident size in bytes of this process and of the processes that an engine has measured."""
        return max(peak_memory(), self._peak)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the duration of the block to a phase."""
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
        """Restarts the clock of the run now."""
        self._mark = time.perf_counter()

    def close_round(self, round: int) -> None:
        """Adds the costs since the end of the previous round to `timings`.

        A round ends just before its checkpoint is written, so that the checkpoint contains its costs. The time to write
        the checkpoint and the time of observers after it count for the next round. For the last round, only the run's
        sums contain this time.
        """
        self.tick()
        spent = {name: value - self._closed[name] for name, value in self.seconds.items()}
        self._closed = dict(self.seconds)
        other = max(spent["total"] - sum(spent[name] for name in PHASES), 0.0)
        for name in PHASES:
            self.timings.add(round, "system", name, "seconds", spent[name])
        self.timings.add(round, "system", "other", "seconds", other)
        self.timings.add(round, "system", "total", "seconds", spent["total"])
        self.timings.add(round, "system", "process", "peak_memory_bytes", peak_memory())
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            self.timings.add(round, "system", "gpu", "peak_memory_bytes", torch.cuda.max_memory_allocated())
        for (name, metric), value in self._measured.items():
            self.timings.add(round, "system", name, metric, value)
        self._measured = {}

    def by_phase(self) -> dict[str, float]:
        """Returns seconds by phase; `other` is the time outside of all phases."""
        known = sum(self.seconds[name] for name in PHASES)
        seconds = {**{name: self.seconds[name] for name in PHASES}, "other": max(self.seconds["total"] - known, 0.0)}
        seconds["total"] = self.seconds["total"]
        return {name: round(value, 3) for name, value in seconds.items()}

    def state_dict(self) -> dict[str, Any]:
        """Returns plain values for a checkpoint."""
        self.tick()
        return {
            "seconds": dict(self.seconds),
            "bytes_down": self.bytes_down,
            "bytes_up": self.bytes_up,
            "closed": dict(self._closed),
            "timings": self.timings.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the sums of a checkpoint. If the checkpoint has no timings, they start with the next round."""
        self.seconds |= state["seconds"]
        self.bytes_down, self.bytes_up = state["bytes_down"], state["bytes_up"]
        self._closed = {**self.seconds, **state.get("closed", {})}
        if "timings" in state:
            self.timings.load_state_dict(state["timings"])
