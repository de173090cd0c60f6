"""Where jobs run. The protocol is narrow, so that an engine over processes or machines fits behind it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from fedreid_pl.federation.messages import ClientFailure, ClientJob, ClientUpdate


class Member(NamedTuple):
    """A client as an engine knows it.

    Args:
        images: declared number of training images.
        tests: names of its test sets.
    """

    images: int
    tests: tuple[str, ...]


class Engine(Protocol):
    """Takes jobs to clients and brings their answers back.

    Answers may come in any order: the server puts them into the order of the jobs (`server.answers`).

    An engine whose clients come and go has a method `members`, which returns a `Member` by client. The loop calls it
    before every round: the clients that it names take part from this round on.
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
