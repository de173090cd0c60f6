"""The interface of a transport. A transport knows bytes and the names of silos, but no models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from fedreid_pl.engines.silos.payload import Payload


class Transport(Protocol):
    """The coordinator's end of a transport. It holds one payload for each silo and returns each answer once."""

    def post(self, silo: str, payload: Payload, most: int) -> None:
        """Offers a payload to a silo and replaces the earlier payload; the answer may have up to `most` bytes."""
        ...

    def withdraw(self, silo: str) -> None:
        """Withdraws the payload of a silo; the transport then refuses answers of this silo."""
        ...

    def next(self, timeout: float) -> tuple[str, Payload] | None:
        """Returns a silo's name and its answer, `None` after `timeout` seconds; the caller owns the answer's file."""
        ...

    def seen(self) -> Mapping[str, float]:
        """Returns the seconds since the last contact with each silo, by name; omits a silo that never connected."""
        ...

    def close(self) -> None:
        """Closes the transport."""
        ...


class Link(Protocol):
    """A silo's end of a transport."""

    def fetch(self, have: str) -> Payload | None:
        """Waits for a payload whose digest is not `have` and returns it, `None` if no such payload arrives in time."""
        ...

    def push(self, payload: Payload, answers: str) -> bool:
        """Sends an answer to the payload with the digest `answers`; returns `False` if the coordinator refuses it."""
        ...

    def close(self) -> None:
        """Closes the connection."""
        ...
