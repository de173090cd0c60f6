"""Records which clients are members of a run in which rounds: clients may join, leave and return."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Events = dict[str, list[list[int]]]
"""By client, pairs `[round, images]`: the client's number of training images from this round on; 0 if it has left."""


class Span(NamedTuple):
    """Rounds in which a client was a member.

    Args:
        first, last: first and last round; `last` is `None` for a current member.
        images: number of the client's training images in these rounds.
    """

    first: int
    last: int | None
    images: int


class Members:
    """Records the rounds in which each client is a member.

    >>> members = Members()
    >>> members.note(1, {"a": 10, "b": 20}), members.note(4, {"a": 10, "c": 5}), members.note(6, {"a": 12, "b": 20})
    ({'a': 10, 'b': 20}, {'b': 0, 'c': 5}, {'a': 12, 'c': 0, 'b': 20})
    >>> [tuple(span) for span in members.spans("b")]
    [(1, 3, 20), (6, None, 20)]
    """

    def __init__(self) -> None:
        self._events: Events = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._events)

    def __len__(self) -> int:
        """Returns the number of clients that are or were members."""
        return len(self._events)

    def present(self) -> dict[str, int]:
        """Returns the number of training images of each current member."""
        return {client: events[-1][1] for client, events in self._events.items() if events[-1][1]}

    def note(self, round: int, clients: Mapping[str, int]) -> dict[str, int]:
        """Records the members from a round on.

        Args:
            round: the round.
            clients: number of training images by client.

        Returns:
            The changes: number of training images by client, zero for a client that has left.
        """
        now = self.present()
        changes = {client: clients.get(client, 0) for client in now if clients.get(client, 0) != now[client]}
        changes |= {client: images for client, images in clients.items() if client not in now}
        for client, images in changes.items():
            self._events.setdefault(client, []).append([round, images])
        return changes

    def spans(self, client: str) -> list[Span]:
        """Returns the rounds in which a client was a member, in order."""
        events = self._events.get(client, [])
        ends: list[int | None] = [round - 1 for round, _ in events[1:]]
        return [Span(round, end, images) for (round, images), end in zip(events, [*ends, None], strict=False) if images]

    def summary(self) -> dict[str, list[dict[str, int | None]]]:
        """Returns the spans of every client as plain values for summary.json."""
        return {client: [span._asdict() for span in self.spans(client)] for client in self._events}

    def state_dict(self) -> dict[str, Any]:
        """Returns plain values for a checkpoint."""
        return {client: [list(event) for event in events] for client, events in self._events.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the values that `state_dict` returned."""
        self._events = {client: [list(event) for event in events] for client, events in state.items()}
