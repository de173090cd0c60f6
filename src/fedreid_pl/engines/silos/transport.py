"""What a transport offers: it knows bytes and names of silos, and nothing of models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from fedreid_pl.engines.silos.payload import Payload


class Transport(Protocol):
    """The coordinator's end. One payload at a time lies ready for a silo; every answer is handed on once."""

    def post(self, silo: str, payload: Payload, most: int) -> None:
        """Lays a payload ready for a silo, in place of the one before; the answer may have `most` bytes."""
        ...

    def withdraw(self, silo: str) -> None:
        """Takes back what lies ready; what the silo sends from now on is refused."""
        ...

    def next(self, timeout: float) -> tuple[str, Payload] | None:
        """Returns a silo's name and what it sent, `None` after `timeout` seconds; the file is the caller's."""
        ...

    def seen(self) -> Mapping[str, float]:
        """Returns by silo the seconds since the coordinator last heard of it; a silo that never came is missing."""
        ...

    def close(self) -> None:
        """Ends the transport."""
        ...


class Link(Protocol):
    """A silo's end."""

    def fetch(self, have: str) -> Payload | None:
        """Waits for a payload with another digest than `have`; `None` if there was none for a while."""
        ...

    def push(self, payload: Payload) -> bool:
        """Sends an answer; returns `False` if the coordinator does not want it."""
        ...

    def close(self) -> None:
        """Ends the connection."""
        ...
