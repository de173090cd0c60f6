"""State of the run that the parts of the server share; callbacks and observers receive it as `federation`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedreid_pl.config import Config
from fedreid_pl.errors import printable
from fedreid_pl.federation.engine import Member
from fedreid_pl.federation.messages import State
from fedreid_pl.federation.server.costs import Costs
from fedreid_pl.federation.server.history import History
from fedreid_pl.federation.server.ledger import Ledger
from fedreid_pl.federation.server.network import ServerNetwork


class RoundContext:
    """The run as its current round sees it; callbacks and observers receive it as `federation`.

    It stores values and runs nothing. It gives no access to the loop, the engine, the checkpoints or the callbacks.

    Args:
        config: configuration of the run.
        clients: declared number of training images by client, for all current members; its order is the order of every
            table.
        tests: names of the test sets of every client.
        initial_backbone: state dict from which every run with this seed starts.
        buffer_names: names of its entries that are not parameters.
        server: the server's network and its unlabelled images.
        unseen: names of the test sets that belong to no client.

    Attributes:
        round: the current round, or the last finished round.
        selected: clients of the round.
        models: state dicts of the server's models: `{"global": ...}`, one per cluster, or empty.
        exchanged: names of a model's entries that server and clients exchange; `None` stands for all entries.
        assignment: name of the model that a client uses, for clients that do not use `"global"`.
        weights: aggregation weights of the last round.
        turns: the last round in which each client answered; its next turn starts from the state of that round.
        algorithms: values that the callbacks report (`summary`), by name of the callback.
        running, done: clients that are working, and number of clients that have answered in the current pass.
        asked: number of clients that get a job in the current pass.
        session, attempt: session and attempt of the jobs, see `ClientJob`.
        ledger: history, costs, warnings and rejected answers.
        on_progress: called when `running` or `done` changes.
    """

    def __init__(
        self,
        config: Config,
        clients: Mapping[str, int],
        tests: Mapping[str, Sequence[str]],
        initial_backbone: State,
        buffer_names: frozenset[str],
        server: ServerNetwork | None = None,
        unseen: Sequence[str] = (),
    ) -> None:
        self.config, self.clients, self.tests = config, dict(clients), dict(tests)
        self.initial_backbone, self.buffer_names, self._server = initial_backbone, buffer_names, server
        self.unseen = tuple(unseen)
        self.seed, self.rounds = config.seed, config.rounds
        self.round = 0
        self.selected: list[str] = []
        self.models: dict[str, State] = {}
        self.exchanged: frozenset[str] | None = None
        self.assignment: dict[str, str] = {}
        self.weights: dict[str, float] = {}
        self.turns: dict[str, int] = {}
        self.keeps = ""
        self.inspected: int | None = None
        self.algorithms: dict[str, Any] = {}
        self.running: dict[str, None] = {}
        self.done = self.asked = 0
        self.session, self.attempt = "", 1
        self.ledger = Ledger()
        self.on_progress: Callable[[], None] = lambda: None

    @property
    def server(self) -> ServerNetwork:
        """The server's network and its public images.

        Raises:
            RuntimeError: if the run has no network at the server.
        """
        if self._server is None:
            raise RuntimeError("this run has no network at the server; create RoundContext with a ServerNetwork")
        return self._server

    @property
    def history(self) -> History:
        """All recorded numbers of the run."""
        return self.ledger.history

    @property
    def costs(self) -> Costs:
        """Seconds, bytes and memory of the run."""
        return self.ledger.costs

    @property
    def rejected(self) -> dict[str, int]:
        """Number of rejected answers by client."""
        return self.ledger.rejected

    @property
    def rejections(self) -> dict[str, dict[str, list[int]]]:
        """Rounds of the rejected answers, by client and reason."""
        return self.ledger.rejections

    def set_members(self, members: Mapping[str, Member]) -> None:
        """Sets the members from this round on, in the engine's order, which a resumed run repeats."""
        self.clients = {client: member.images for client, member in members.items()}
        self.tests = {client: member.tests for client, member in members.items()}

    def note_members(self) -> dict[str, int]:
        """Records the members of this round.

        Returns:
            Number of training images of each client that has joined, has left (zero), or has another number than
            before. The result is empty in a run's first round.
        """
        first = not len(self.ledger.members)
        changes = self.ledger.members.note(self.round, self.clients)
        if first:
            return {}
        for client, images in changes.items():
            self.record("members", client, "images", images)
        return changes

    def model_of(self, client: str) -> str:
        """Returns the name of the model that a client uses."""
        return self.assignment.get(client, "global")

    def travelling(self, model: State) -> State:
        """Returns the entries of a model that server and clients exchange."""
        if self.exchanged is None:
            return model
        return {name: value for name, value in model.items() if name in self.exchanged}

    def record(self, section: str, name: str, metric: str, value: float) -> None:
        """Adds a number of this round to metrics.csv and every logger."""
        self.history.add(self.round, section, name, metric, value)

    def warn(self, text: str) -> None:
        """Prints and logs a warning that starts with the number of the round."""
        self.ledger.tell(f"round {self.round}: {text}")

    def reject(self, client: str, reason: str, detail: str = "") -> None:
        """Rejects an answer of a client: prints a warning, and counts the rejection for the summary.

        Args:
            client: client that sent the answer.
            reason: reason, saved in the checkpoint and the summary.
            detail: further text, which is only printed.
        """
        self.ledger.reject(self.round, client, reason)
        self.warn(f"client {printable(client)} is left out: {reason}{f': {detail}' if detail else ''}")

    def count(self, direction: str, client: str, size: int) -> None:
        """Adds bytes that were sent `"down"` to a client or `"up"` from it."""
        if direction == "down":
            self.costs.bytes_down += size
        else:
            self.costs.bytes_up += size
        self.record("cost", printable(client), f"bytes_{direction}", size)

    # progress of a pass: one job for each of several clients

    def begin_pass(self, asked: int) -> None:
        """Resets the progress for a pass over `asked` clients."""
        self.running, self.done, self.asked = {}, 0, asked

    def started(self, client: str) -> None:
        """Notes that a client has started its job."""
        self.running[client] = None
        self.on_progress()

    def answered(self, client: str) -> None:
        """Notes that a client has answered with an update or a failure."""
        self.running.pop(client, None)
        self.done += 1
        self.on_progress()
