"""A sequential engine with one hostile client; what it may send is in `hostile.updates`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from hostile.updates import Spoil

from fedreid_pl.engines.sequential import SequentialEngine
from fedreid_pl.federation.messages import ClientFailure, ClientJob, ClientUpdate


class BadClientEngine(SequentialEngine):
    """A real engine whose client `name` sends what `spoil` makes of its update."""

    name: str
    spoil: Spoil

    def fit(self, jobs: Iterable[ClientJob]) -> Iterator[ClientUpdate | ClientFailure]:
        for outcome in super().fit(jobs):
            if outcome.client == self.name and isinstance(outcome, ClientUpdate):
                yield from self.spoil(outcome)
            else:
                yield outcome


def engine_with(name: str, spoil: Spoil) -> type[BadClientEngine]:
    """The engine's class with one bad client."""
    return type("Engine", (BadClientEngine,), {"name": name, "spoil": staticmethod(spoil)})


def hang(*parts: Any, **named: Any) -> None:
    """A batch that never ends, in Python: what a dead file server or a lost worker looks like."""
    while True:
        time.sleep(0.01)
