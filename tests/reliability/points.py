"""Named points in a run at which a test can kill the process, at the n-th call.

The product contains no such code: the test wraps the functions in the process that it kills.
"""

from __future__ import annotations

import importlib
import mmap
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

CALLS = {
    "fit: a batch": ("fedreid_pl.client", "ReIDClient.training_step"),
    "fit: the turn's end": ("fedreid_pl.client", "ReIDClient.on_train_end"),
    "fit: the next job": ("fedreid_pl.federation.client.worker", "ClientWorker._prepare"),
    "collect: an update is checked": ("fedreid_pl.federation.server.collection", "check_update"),
    "aggregate: weights": ("fedreid_pl.federation.server.loop", "normalize_within"),
    "aggregate: the average": ("fedreid_pl.callbacks.backbone_sync", "weighted_average"),
    "distil: a teacher": ("fedreid_pl.callbacks.distillation", "Distillation._teach"),
    "distil: a batch": ("fedreid_pl.callbacks.distillation", "Distillation._forward"),
    "cluster: a feature": ("fedreid_pl.callbacks.clustering", "Clustering._mean_feature"),
    "evaluate: a batch": ("fedreid_pl.client", "ReIDClient.test_step"),
    "evaluate: the scores": ("fedreid_pl.client", "ReIDClient.on_test_epoch_end"),
    "checkpoint: its content": ("fedreid_pl.federation.server.loop", "FederationLoop.state_dict"),
    "fit: old states are deleted": ("fedreid_pl.federation.client.store", "ClientStore.prune"),
    "log: the table": ("fedreid_pl.federation.server.history", "History.to_csv"),
    "log: the summary": ("fedreid_pl.reporting.run_folder", "build_summary"),
}
"""Maps a point to the module and the function that are wrapped; the text before the colon is the phase."""

WRITES = {".ckpt": "checkpoint", ".pt": "fit", ".csv": "log", ".json": "log", ".yaml": "start"}
"""Maps a file's ending to the phase that writes it; the process can be killed at every step of `storage`."""


class Points:
    """Wraps every point in this process, counts calls, records the last point, and kills at the chosen one.

    Args:
        target: (point, number of the call) at which the process kills itself; `None` disables this.
        place: shared memory for the name of the last point, for kills from outside.
    """

    def __init__(self, target: tuple[str, int] | None = None, place: mmap.mmap | None = None) -> None:
        self.target, self.place = target, place
        self.counts: Counter[str] = Counter()
        self._file = ""

    def reach(self, point: str) -> None:
        """Records that the process has reached a point, and kills it at the target."""
        self.counts[point] += 1
        if self.place is not None:
            self.place[:] = point.encode().ljust(len(self.place))
        if self.target == (point, self.counts[point]):
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        """Wraps the functions until the process ends."""
        for point, (module_name, path) in CALLS.items():
            owner: Any = importlib.import_module(module_name)
            *classes, name = path.split(".")
            for part in classes:
                owner = getattr(owner, part)
            setattr(owner, name, self._wrapped(point, getattr(owner, name)))
        self.install_storage()

    def install_storage(self) -> None:
        """Splits the writing of files into steps, with a point before and after each step."""
        storage: Any = importlib.import_module("fedreid_pl.federation.storage")
        storage.open, storage.os = self._open, _System(self)

    def step(self, name: str) -> None:
        """Records a step in writing the file that was opened last."""
        self.reach(f"{self._file} {name}")

    def _wrapped(self, point: str, function: Callable) -> Callable:
        def call(*parts: Any, **named: Any) -> Any:
            self.reach(point)
            return function(*parts, **named)

        return call

    def _open(self, path: Path, mode: str) -> Any:
        file = open(path, mode)  # noqa: SIM115 - the product's own `with` closes it
        if "w" not in mode:
            return file
        name = Path(path.name.strip(".")).with_suffix("").with_suffix("")  # .NAME.ENDING.PID.tmp
        ending = path.name.split(".")[-3]
        self._file = (
            f"{WRITES.get(f'.{ending}', 'log')}: {name if ending in ('csv', 'json', 'yaml') else f'*.{ending}'}"
        )
        self.step("opened")
        return _Halves(file, self)


class _Halves:
    """A file that is written in two parts, with a point between them."""

    def __init__(self, file: Any, points: Points) -> None:
        self._opened, self._points = file, points

    def write(self, data: bytes) -> None:
        self._opened.write(data[: len(data) // 2])
        self._opened.flush()
        self._points.step("half written")
        self._opened.write(data[len(data) // 2 :])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._opened, name)

    def __enter__(self) -> _Halves:
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()


class _System:
    """A replacement of `os` in `storage`, with points before and after the calls that complete a file."""

    def __init__(self, points: Points) -> None:
        self._points = points

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fsync(self, number: int) -> None:
        self._points.step("written")
        os.fsync(number)

    def replace(self, source: Path, target: Path) -> None:
        self._points.step("safe")
        os.replace(source, target)
        self._points.step("in place")
