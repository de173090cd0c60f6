"""Protocol of an engine: where jobs run. It is small, so that an engine can use processes or machines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from fedreid_pl.federation.messages import ClientFailure, ClientJob, ClientUpdate


class Member(NamedTuple):
    """Describes a client to the loop.

    Args:
        images: number of training images that the client has declared.
        tests: names of the client's test sets.
    """

    images: int
    tests: tuple[str, ...]


class Engine(Protocol):
    """Sends jobs to clients and yields their answers.

    Answers may arrive in any order; the server sorts them into the order of the jobs (`server.answers`).

    An engine whose clients join and leave has a method `members`, which returns a `Member` by client. The loop calls it
    before every round. The returned clients take part from this round on.
    """

    def fit(self, jobs: Iterable[ClientJob]) -> Iterator[ClientUpdate | ClientFailure]:
        """Yields one outcome per training job: an update or a failure."""
        ...

    def evaluate(self, jobs: Iterable[ClientJob]) -> Iterator[ClientUpdate | ClientFailure]:
        """Yields one outcome per evaluation job; an update has no tensors, and its scores are metrics under `test/`."""
        ...

    def close(self) -> None:
        """Stops what the engine has started, such as processes; called once, also after an error."""
        ...
