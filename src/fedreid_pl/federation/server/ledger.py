"""Results of a run so far: numbers, costs, warnings and rejected answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fedreid_pl.errors import printable
from fedreid_pl.federation.server.costs import Costs
from fedreid_pl.federation.server.history import History
from fedreid_pl.federation.server.members import Members

Listener = Callable[[str], None]


class Ledger:
    """Collects everything that is printed, logged or saved about a run.

    Attributes:
        history: all recorded numbers.
        costs: seconds, bytes and memory.
        members: the rounds in which each client was a member.
        rejected: number of rejected answers by client.
        rejections: rounds of the rejected answers, by client and reason.
        listeners: functions that are called with the text of every warning.
    """

    def __init__(self) -> None:
        self.history = History()
        self.costs = Costs()
        self.members = Members()
        self.rejected: dict[str, int] = {}
        self.rejections: dict[str, dict[str, list[int]]] = {}
        self.listeners: list[Listener] = []

    def tell(self, text: str) -> None:
        """Passes a warning to every listener."""
        for listener in self.listeners:
            listener(text)

    def reject(self, round: int, client: str, reason: str) -> None:
        """Counts a rejected answer."""
        client = printable(client)
        self.rejected[client] = self.rejected.get(client, 0) + 1
        self.rejections.setdefault(client, {}).setdefault(reason, []).append(round)

    def state_dict(self) -> dict[str, Any]:
        """Returns plain values for a checkpoint."""
        return {
            "rejected": dict(self.rejected),
            "rejections": {client: dict(reasons) for client, reasons in self.rejections.items()},
            "history": self.history.state_dict(),
            "costs": self.costs.state_dict(),
            "members": self.members.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the values that `state_dict` returned."""
        self.rejected = dict(state["rejected"])
        self.rejections = {client: dict(reasons) for client, reasons in state.get("rejections", {}).items()}
        self.history.load_state_dict(state["history"])
        self.costs.load_state_dict(state["costs"])
        self.members.load_state_dict(state.get("members", {}))
