"""A transport inside one process: silos answer when they are waited for, one at a time and in a random order."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from fedreid_pl.engines.silos.payload import Payload

Answer = Callable[[Payload], Payload | None]


class Loopback:
    """Hands copies of files to silos and back.

    Args:
        silos: what answers, by the silo's name, such as `SiloService.answer`.
        folder: where the copies are.
        seed: of the order in which silos answer.
    """

    def __init__(self, silos: Mapping[str, Answer], folder: Path, seed: int = 0) -> None:
        self.silos, self.folder, self._draws = dict(silos), folder, random.Random(seed)
        self._ready: dict[str, Payload] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def post(self, silo: str, payload: Payload, most: int) -> None:
        """Lays a payload ready for a silo."""
        self._ready[silo] = payload

    def withdraw(self, silo: str) -> None:
        """Takes back what lies ready."""
        self._ready.pop(silo, None)

    def next(self, timeout: float) -> tuple[str, Payload] | None:
        """Has one silo answer, `None` if nothing lies ready or the silo has no answer."""
        if not self._ready:
            return None
        silo = self._draws.choice(sorted(self._ready))
        answer = self.silos[silo](self._copied(self._ready.pop(silo), f"{silo}.job"))
        return None if answer is None else (silo, self._copied(answer, f"{silo}.answer"))

    def seen(self) -> Mapping[str, float]:
        """Returns zero seconds for every silo."""
        return dict.fromkeys(self.silos, 0.0)

    def close(self) -> None:
        """Does nothing."""

    def _copied(self, payload: Payload, name: str) -> Payload:
        target = self.folder / name
        target.unlink(missing_ok=True)  # whoever still maps the old file keeps it
        shutil.copyfile(payload.path, target)
        return Payload(target, payload.envelope)
