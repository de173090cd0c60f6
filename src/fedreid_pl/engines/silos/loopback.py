"""A transport inside one process: each call of `next` lets one random silo answer."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from fedreid_pl.engines.silos.payload import Payload

Answer = Callable[[Payload], Payload | None]


class Loopback:
    """Passes copies of files between the coordinator and silos in the same process.

    Args:
        silos: function that answers a payload, such as `SiloService.answer`, by the silo's name.
        folder: folder of the copies.
        seed: seed of the order in which silos answer.
    """

    def __init__(self, silos: Mapping[str, Answer], folder: Path, seed: int = 0) -> None:
        self.silos, self.folder, self._draws = dict(silos), folder, random.Random(seed)
        self._ready: dict[str, Payload] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def post(self, silo: str, payload: Payload, most: int) -> None:
        """Offers a payload to a silo."""
        self._ready[silo] = payload

    def withdraw(self, silo: str) -> None:
        """Withdraws the payload of a silo."""
        self._ready.pop(silo, None)

    def next(self, timeout: float) -> tuple[str, Payload] | None:
        """Returns the name and the answer of one silo, `None` if no payload waits or the silo gives no answer."""
        if not self._ready:
            return None
        silo = self._draws.choice(sorted(self._ready))
        answer = self.silos[silo](self._copied(self._ready.pop(silo), f"{silo}.job"))
        return None if answer is None else (silo, self._copied(answer, f"{silo}.answer"))

    def seen(self) -> Mapping[str, float]:
        """Returns zero seconds for every silo."""
        return dict.fromkeys(self.silos, 0.0)

    def close(self) -> None:
        """Does nothing: this transport has no connection."""

    def _copied(self, payload: Payload, name: str) -> Payload:
        target = self.folder / name
        target.unlink(missing_ok=True)  # a process that still maps the old file keeps its content
        shutil.copyfile(payload.path, target)
        return Payload(target, payload.envelope)
