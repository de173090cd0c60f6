"""A sequential engine with one hostile client; `hostile.updates` lists its updates."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from hostile.updates import Spoil

from fedreid_pl.engines.sequential import SequentialEngine
from fedreid_pl.federation.messages import ClientFailure, ClientJob, ClientUpdate


class BadClientEngine(SequentialEngine):
    """A sequential engine that replaces the updates of client `name` with `spoil(update)`."""

    name: str
    spoil: Spoil

    def fit(self, jobs: Iterable[ClientJob]) -> Iterator[ClientUpdate | ClientFailure]:
        for outcome in super().fit(jobs):
            if outcome.client == self.name and isinstance(outcome, ClientUpdate):
                yield from self.spoil(outcome)
            else:
                yield outcome


def engine_with(name: str, spoil: Spoil) -> type[BadClientEngine]:
    """Returns an engine class with one bad client."""
    return type("Engine", (BadClientEngine,), {"name": name, "spoil": staticmethod(spoil)})


def hang(*parts: Any, **named: Any) -> None:
    """Simulates a batch that never ends, as with a dead file server or a lost worker."""
    while True:
        time.sleep(0.01)
