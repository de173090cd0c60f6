"""The output of every benchmark: ratios with median, minimum and maximum, the machine and the versions."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytorch_lightning
import torch


@dataclass
class Figure:
    """One measured quantity.

    Args:
        name: name of the quantity.
        values: one value per repetition.
        bound: the target in words; empty without a target.
        unit: unit of the values; `x` is a ratio.
    """

    name: str
    values: list[float]
    bound: str = ""
    unit: str = "x"

    def cells(self) -> tuple[str, ...]:
        """Returns name, median, minimum, maximum, repetitions and target as table cells."""
        numbers = [f"{value:.3g}" if self.unit == "MiB" else f"{value:.3f}" for value in self._three()]
        unit = "" if self.unit == "x" else f" {self.unit}"
        return self.name, *(number + unit for number in numbers), str(len(self.values)), self.bound

    def _three(self) -> tuple[float, float, float]:
        return statistics.median(self.values), min(self.values), max(self.values)


@dataclass
class Report:
    """The figures of one benchmark."""

    title: str
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, values: Sequence[float], bound: str = "", unit: str = "x") -> None:
        """Records and prints a figure."""
        figure = Figure(name, [float(value) for value in values], bound, unit)
        self.figures.append(figure)
        _, median, low, high, count, _ = figure.cells()
        print(f"{name}: median {median}, min {low}, max {high} ({count} times){'; ' + bound if bound else ''}")

    def note(self, text: str) -> None:
        """Records and prints a remark, such as an absolute time."""
        self.notes.append(text)
        print(text)

    def finish(self, path: Path | None = None) -> None:
        """Prints machine and versions, and writes all figures to `path` as JSON if a path is given."""
        print(machine())
        if path is not None:
            path.write_text(json.dumps(asdict(self) | {"machine": machine()}, indent=2) + "\n", encoding="utf-8")


def machine() -> str:
    """Returns processor or GPU, threads, system and the versions that determine the speed."""
    return (
        f"{processor()}, {os.cpu_count()} processors, {torch.get_num_threads()} threads, {platform.system()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}, Lightning {pytorch_lightning.__version__}"
    )


def processor() -> str:
    """Returns the GPU's name, or the processor's name without a GPU."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")
    return f"{name} {platform.machine()}".strip()
