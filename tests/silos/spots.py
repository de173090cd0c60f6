"""Points in a silo's or the coordinator's code at which a process pauses, so that a test can kill or cut off a party.

A process that reaches the spot named in the control file creates the file `hit-ID` beside it and waits until the test
deletes that file. The test strikes meanwhile. The product contains no such code.
"""

from __future__ import annotations

import importlib
import json
import mmap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from reliability.points import Points

PHASES = ("joining", "download", "training", "upload", "aggregation", "checkpoint", "evaluation")
SIZE = 512  # bytes of the control file
PATIENCE = 20.0  # longest wait of a process at a spot, in seconds

CALLS = {
    "joining: the experiment is read": ("fedreid_pl.engines.silos.service", "SiloService._experiment"),
    "joining: the data are read": ("fedreid_pl.engines.silos.session", "Session.registration"),
    "joining: a start of the coordinator": (
        "fedreid_pl.engines.silos.federation_folder",
        "FederationFolder.next_launch",
    ),
    "joining: the experiment goes out": ("fedreid_pl.engines.silos.coordinator", "SilosEngine.join"),
    "training: a job is checked": ("fedreid_pl.federation.client.worker", "check_job"),
    "training: a batch": ("fedreid_pl.client", "ReIDClient.training_step"),
    "training: the last batch": ("fedreid_pl.client", "ReIDClient.on_train_end"),
    "evaluation: a batch": ("fedreid_pl.client", "ReIDClient.test_step"),
    "upload: the answer is kept": ("fedreid_pl.engines.silos.kept_answer", "KeptAnswer.keep"),
    "upload: an answer is whole": ("fedreid_pl.engines.silos.mailbox", "Mailbox._hand_on"),
    "aggregation: an update is checked": ("fedreid_pl.federation.server.collection", "check_update"),
    "aggregation: weights": ("fedreid_pl.federation.server.loop", "normalize_within"),
    "aggregation: the average": ("fedreid_pl.callbacks.backbone_sync", "weighted_average"),
    "checkpoint: its content": ("fedreid_pl.federation.server.loop", "FederationLoop.state_dict"),
}
STREAMS = {
    "download: a piece is written": ("fedreid_pl.engines.silos.grpc_link", "GrpcLink._written", True),
    "download: a piece is read": ("fedreid_pl.engines.silos.grpc_server", "read_pieces", False),
    "upload: a piece is read": ("fedreid_pl.engines.silos.grpc_link", "read_pieces", False),
    "upload: a piece is written": ("fedreid_pl.engines.silos.mailbox", "Mailbox.take", True),
}
"""Maps a spot to its module and function; for streams also: the last argument (True) or the result (False)."""
FILES = {"fit": "checkpoint", "start": "joining"}
"""Phase of each spot within file writing, by its name in `Points`."""


class Spots(Points):
    """Installs the spots in this process.

    Args:
        control: the file that names the next spot; see `Control`.
        who: the party's name.
        pace: minimum duration of training in seconds, so that other parties can act meanwhile.
    """

    def __init__(self, control: Path, who: str, pace: float = 0.0) -> None:
        super().__init__()
        self.control, self.who, self.pace = control, who, pace
        with open(control, "r+b") as file:
            self._shared = mmap.mmap(file.fileno(), SIZE, access=mmap.ACCESS_READ)
        self._raw, self._order = b"", dict[str, Any]()
        self._lock, self._passed = threading.Lock(), 0

    def install(self) -> None:
        """Wraps the functions until the process ends."""
        for point, (module, path) in CALLS.items():
            self._replace(module, path, lambda function, point=point: self._wrapped(point, function))
        for point, (module, path, argument) in STREAMS.items():
            self._replace(module, path, lambda function, p=point, a=argument: self._streaming(p, function, a))
        if self.pace:
            self._replace("fedreid_pl.client", "ReIDClient.on_train_end", self._slow)
        self.install_storage()

    def reach(self, point: str) -> None:
        """Creates `hit-ID` and waits, if the control file names this spot."""
        raw = self._shared[:SIZE]
        if raw != self._raw:
            with self._lock:
                self._raw, self._order, self._passed = raw, _order(raw), 0
        order = self._order
        phase = point.partition(":")[0]
        if order.get("who") != self.who or order.get("phase") != FILES.get(phase, phase):
            return
        with self._lock:
            self._passed += 1
            hit = self.control.with_name(f"hit-{order['id']}")
            if self._passed != order["skip"] + 1:
                return
        hit.write_text(point)
        end = time.monotonic() + PATIENCE
        while hit.exists() and time.monotonic() < end:
            time.sleep(0.005)

    def _replace(self, module: str, path: str, make: Callable[[Callable], Callable]) -> None:
        owner: Any = importlib.import_module(module)
        *classes, name = path.split(".")
        for part in classes:
            owner = getattr(owner, part)
        setattr(owner, name, make(getattr(owner, name)))

    def _streaming(self, point: str, function: Callable, argument: bool) -> Callable:
        def passing(pieces: Iterator[bytes]) -> Iterator[bytes]:
            for piece in pieces:
                self.reach(point)
                yield piece
            self.reach(point)

        def call(*parts: Any, **named: Any) -> Any:
            if argument:
                return function(*parts[:-1], passing(parts[-1]), **named)
            return passing(function(*parts, **named))

        return call

    def _slow(self, function: Callable) -> Callable:
        def call(*parts: Any, **named: Any) -> Any:
            time.sleep(self.pace)
            return function(*parts, **named)

        return call


def _order(raw: bytes) -> dict[str, Any]:
    try:
        return json.loads(raw)
    except ValueError:  # no control file yet, or a half-written one
        return {}


class Control:
    """Writes the control file: names the party and the spot that waits next.

    Args:
        path: the control file.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._number = path, 0
        path.write_bytes(b" " * SIZE)

    def arm(self, who: str, phase: str, skip: int) -> None:
        """Makes the party wait at a spot of this phase, after it has passed `skip` other spots of the phase."""
        self._number += 1
        order = {"id": self._number, "who": who, "phase": phase, "skip": skip}
        self._write(json.dumps(order).encode())

    def hit(self) -> str | None:
        """Returns the name of the spot where the party waits, or `None` if no party waits yet."""
        file = self.path.with_name(f"hit-{self._number}")
        return file.read_text() or None if file.exists() else None

    def release(self) -> None:
        """Clears the control file: no party waits at a spot."""
        self._write(b"")
        self.path.with_name(f"hit-{self._number}").unlink(missing_ok=True)

    def _write(self, content: bytes) -> None:
        with open(self.path, "r+b", buffering=0) as file:
            file.write(content.ljust(SIZE))
