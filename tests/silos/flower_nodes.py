"""Flower nodes inside this process, and a clock that advances only when the transport sleeps."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from silos.parties import silo_words

from fedreid_pl.engines.silos.flower.client import answer_payload, answer_question, guarded
from fedreid_pl.engines.silos.flower.parcel import Parcel
from fedreid_pl.engines.silos.flower.post import INTRODUCE, Reply

Node = Callable[[str, Parcel, int], Parcel | Reply]
"""Answers (action, parcel, number of the node)."""


class Nodes:
    """Simulates Flower's message exchange for the transport; a node runs when the transport pulls its reply.

    Args:
        nodes: maps a node's number to the function that answers its messages.
    """

    def __init__(self, nodes: dict[int, Node]) -> None:
        self.online = nodes
        self.sent: list[tuple[int, str, Parcel]] = []
        self._waiting: dict[str, tuple[int, str, Parcel]] = {}

    def nodes(self) -> Collection[int]:
        return list(self.online)

    def send(self, node: int, action: str, parcel: Parcel) -> str | None:
        self.sent.append((node, action, parcel))
        self._waiting[name := f"message-{len(self.sent)}"] = self.sent[-1]
        return name

    def take(self, message: str) -> Reply | None:
        node, action, parcel = self._waiting.get(message, (0, "", Parcel({})))
        if node not in self.online:
            return None
        del self._waiting[message]
        found = self.online[node](action, parcel, node)
        return found if isinstance(found, Reply) else Reply(found)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def silo_node(folder: Path, root: Path, said: list[str] | None = None) -> Node:
    """A node that runs a silo's app; every call loads the silo's state from its folder."""
    config = {"silo-folder": str(folder), "silo-words": " ".join(silo_words(root, folder.name))}
    say = (said if said is not None else []).append

    def node(action: str, parcel: Parcel, number: int) -> Parcel:
        if action == INTRODUCE:
            return guarded(lambda: answer_question(parcel, number, config), say)
        return guarded(lambda: answer_payload(parcel, config, say), say)

    return node
