"""Where jobs run. The protocol is narrow, so that an engine over processes or machines fits behind it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from fedreid_pl.federation.messages import ClientFailure, ClientJob, ClientUpdate


class Engine(Protocol):
    """Takes jobs to clients and brings their updates back, in any order."""

    def fit(self, jobs: Iterable[ClientJob]) -> Iterator[ClientUpdate | ClientFailure]:
        """One outcome per job."""
        ...

    def evaluate(self, jobs: Iterable[ClientJob]) -> Iterator[ClientUpdate | ClientFailure]:
        """One outcome per job; an update without tensors, its scores under `test/`."""
        ...
