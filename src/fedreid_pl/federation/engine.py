"""Where jobs run. The protocol is narrow, so that an engine over processes or machines fits behind it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from fedreid_pl.federation.messages import ClientFailure, ClientJob, ClientUpdate


class Engine(Protocol):
    """Takes jobs to clients and brings their answers back.

    Answers may come in any order: the server puts them into the order of the jobs (`server.answers`).
    """

    def fit(self, jobs: Iterable[ClientJob]) -> Iterator[ClientUpdate | ClientFailure]:
        """One outcome per job."""
        ...

    def evaluate(self, jobs: Iterable[ClientJob]) -> Iterator[ClientUpdate | ClientFailure]:
        """One outcome per job; an update without tensors, its scores under `test/`."""
        ...

    def close(self) -> None:
        """Ends what the engine has started, such as processes; called once, also after an error."""
        ...
