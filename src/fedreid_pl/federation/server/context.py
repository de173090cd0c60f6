"""What the parts of the server share about the round: the view of a run that callbacks and observers get."""

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
    """A run as its round sees it; callbacks and observers know it as `federation`.

    It holds values and runs nothing: the loop, the engine, the checkpoints and the callbacks are not reached from it.

    Args:
        config: the experiment.
        clients: declared number of training images by client, of those that are members now; its order is the order
            of every table.
        tests: names of the test sets of every client.
        initial_backbone: state dict that every run with this seed starts from.
        buffer_names: its entries that are not parameters.
        server: the server's network and its unlabelled images.
        unseen: names of the test sets that no client has.

    Attributes:
        round: the round being done, or the last one done.
        selected: clients of the round.
        models: state dicts that the server holds, `{"global": ...}`, one per cluster, or none.
        exchanged: names of a model's entries that travel between server and clients; `None`: all of them.
        assignment: name of the model that a client works with, where it is not `"global"`.
        weights: aggregation weights of the last round.
        turns: the last round in which each client answered, which is the state that it starts from next.
        algorithms: what the callbacks tell about themselves (`summary`), by name.
        running, done: clients at work, and how many have answered, of those asked since the last pass over clients.
        asked: how many are asked in this pass.
        session, attempt: of the jobs that go out, see `ClientJob`.
        ledger: history, costs, warnings and refusals.
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
            RuntimeError: if the run was made without one.
        """
        if self._server is None:
            raise RuntimeError("this federation has no network at the server")
        return self._server

    @property
    def history(self) -> History:
        """Everything measured."""
        return self.ledger.history

    @property
    def costs(self) -> Costs:
        """Seconds, bytes and memory."""
        return self.ledger.costs

    @property
    def rejected(self) -> dict[str, int]:
        """How many answers of each client were left out."""
        return self.ledger.rejected

    @property
    def rejections(self) -> dict[str, dict[str, list[int]]]:
        """The rounds in which a client's answers were left out, by client and reason."""
        return self.ledger.rejections

    def set_members(self, members: Mapping[str, Member]) -> None:
        """Sets who is a member from this round on, in the engine's order, as a resumed run finds it."""
        self.clients = {client: member.images for client, member in members.items()}
        self.tests = {client: member.tests for client, member in members.items()}

    def note_members(self) -> dict[str, int]:
        """Writes into the books who is a member in this round.

        Returns:
            Training images by client that has joined, has others than before, or (zero) is no longer there; nothing in
            a run's first round, whose clients are there from the start.
        """
        first = not len(self.ledger.members)
        changes = self.ledger.members.note(self.round, self.clients)
        if first:
            return {}
        for client, images in changes.items():
            self.record("members", client, "images", images)
        return changes

    def model_of(self, client: str) -> str:
        """Name of the model that a client works with."""
        return self.assignment.get(client, "global")

    def travelling(self, model: State) -> State:
        """The entries of a model that are exchanged with clients."""
        if self.exchanged is None:
            return model
        return {name: value for name, value in model.items() if name in self.exchanged}

    def record(self, section: str, name: str, metric: str, value: float) -> None:
        """Adds a number of this round to metrics.csv and every logger."""
        self.history.add(self.round, section, name, metric, value)

    def warn(self, text: str) -> None:
        """Prints and logs a warning with the number of the round in front."""
        self.ledger.tell(f"round {self.round}: {text}")

    def reject(self, client: str, reason: str, detail: str = "") -> None:
        """Leaves out what a client sent: warns, and counts it for the summary.

        Args:
            client: whose answer it is.
            reason: what is kept in the checkpoint and the summary.
            detail: more, for the screen alone.
        """
        self.ledger.reject(self.round, client, reason)
        self.warn(f"client {printable(client)} is left out: {reason}{f': {detail}' if detail else ''}")

    def count(self, direction: str, client: str, size: int) -> None:
        """Adds bytes that travelled `"down"` to a client or `"up"` from it."""
        if direction == "down":
            self.costs.bytes_down += size
        else:
            self.costs.bytes_up += size
        self.record("cost", printable(client), f"bytes_{direction}", size)

    # progress of a pass over clients

    def begin_pass(self, asked: int) -> None:
        """Starts counting for a pass over `asked` clients."""
        self.running, self.done, self.asked = {}, 0, asked

    def started(self, client: str) -> None:
        """A client is at work."""
        self.running[client] = None
        self.on_progress()

    def answered(self, client: str) -> None:
        """A client has answered, with an update or a failure."""
        self.running.pop(client, None)
        self.done += 1
        self.on_progress()
