"""The rounds: select, distribute, train, collect, weigh, aggregate, evaluate, save. No algorithm is named here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from fedreid_pl.config import Config
from fedreid_pl.errors import FedReIDError, printable
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.client.store import ClientStore
from fedreid_pl.federation.engine import Engine
from fedreid_pl.federation.messages import ClientUpdate, State
from fedreid_pl.federation.server.checkpoint import Checkpoints, check_models
from fedreid_pl.federation.server.collection import Collection
from fedreid_pl.federation.server.costs import Costs
from fedreid_pl.federation.server.evaluation import evaluate_models, record_local
from fedreid_pl.federation.server.history import History, best_round
from fedreid_pl.federation.server.inbox import UpdateInbox
from fedreid_pl.federation.server.network import ServerNetwork
from fedreid_pl.federation.server.observer import Observer
from fedreid_pl.federation.server.selection import check_selection, select_clients
from fedreid_pl.functional.aggregation import normalize_within


class FederationLoop:
    """Drives the rounds of an experiment; callbacks see it as `federation`.

    Args:
        config: the experiment.
        clients: declared number of training images by client; its order is the order of every table.
        tests: names of the test sets of every client.
        engine: where jobs run.
        callbacks: server halves by name.
        initial_backbone: state dict that every run with this seed starts from.
        buffer_names: its entries that are not parameters.
        checkpoints, store: where server and clients keep their state.
        server: the server's network and its unlabelled images.
        observers: screen, files, wandb; none on processes other than the first.
        inbox: where updates wait until all are in; `None`: in memory.

    Attributes:
        round: the round being done, or the last one done.
        selected: clients of the round.
        models: state dicts that the server holds, `{"global": ...}`, one per cluster, or none.
        assignment: name of the model that a client works with, where it is not `"global"`.
        weights: aggregation weights of the last round.
        history: everything measured.
        rejected: how many answers of each client were left out.
        rejections: the rounds in which that happened, by client and reason.
    """

    def __init__(
        self,
        config: Config,
        clients: Mapping[str, int],
        tests: Mapping[str, Sequence[str]],
        engine: Engine,
        callbacks: Mapping[str, FederationCallback],
        initial_backbone: State,
        buffer_names: frozenset[str],
        checkpoints: Checkpoints,
        store: ClientStore,
        server: ServerNetwork | None = None,
        observers: Sequence[Observer] = (),
        inbox: UpdateInbox | None = None,
    ) -> None:
        self.config, self.clients, self.tests = config, dict(clients), tests
        self.engine, self.callbacks, self.observers = engine, dict(callbacks), list(observers)
        self.initial_backbone, self.buffer_names = initial_backbone, buffer_names
        self.checkpoints, self.store = checkpoints, store
        self._server, self.inbox = server, inbox or UpdateInbox()
        self.seed, self.rounds = config.seed, config.rounds
        self.round = 0
        self.selected: list[str] = []
        self.models: dict[str, State] = {}
        self.assignment: dict[str, str] = {}
        self.weights: dict[str, float] = {}
        self.history = History()
        self.costs = Costs()
        self.rejected: dict[str, int] = {}
        self.rejections: dict[str, dict[str, list[int]]] = {}
        check_selection(config, len(self.clients))
        for callback in self.callbacks.values():
            callback.on_federation_start(self)

    # for callbacks

    @property
    def server(self) -> ServerNetwork:
        """The server's network and its public images.

        Raises:
            RuntimeError: if the loop was made without one.
        """
        if self._server is None:
            raise RuntimeError("this federation has no network at the server")
        return self._server

    def model_of(self, client: str) -> str:
        """Name of the model that a client works with."""
        return self.assignment.get(client, "global")

    def record(self, section: str, name: str, metric: str, value: float) -> None:
        """Adds a number of this round to metrics.csv and every logger."""
        self.history.add(self.round, section, name, metric, value)

    def warn(self, text: str) -> None:
        """Says something once, in this round's name, on the screen and in the log."""
        for observer in self.observers:
            observer.on_warning(self, f"round {self.round}: {text}")

    def reject(self, client: str, reason: str, detail: str = "") -> None:
        """Leaves out what a client sent: says so, and counts it for the summary.

        Args:
            client: whose answer it is.
            reason: what is kept in the checkpoint and the summary.
            detail: more, for the screen alone.
        """
        client = printable(client)
        self.rejected[client] = self.rejected.get(client, 0) + 1
        rounds = self.rejections.setdefault(client, {}).setdefault(reason, [])
        rounds.append(self.round)
        self.warn(f"client {client} is left out: {reason}{f': {detail}' if detail else ''}")

    def count(self, direction: str, client: str, size: int) -> None:
        """Adds bytes that travelled `"down"` to a client or `"up"` from it."""
        if direction == "down":
            self.costs.bytes_down += size
        else:
            self.costs.bytes_up += size
        self.record("cost", printable(client), f"bytes_{direction}", size)

    # the rounds

    def run(self) -> None:
        """All rounds that are not done yet.

        Raises:
            FedReIDError: if fewer than `min_clients` good updates came in, or a checkpoint cannot be written.
        """
        self.costs.restart()
        for observer in self.observers:
            observer.on_start(self)
        if self.round == 0 and not self.history.records:
            self.evaluate_models()
            if self.history.records:
                self.costs.close_round(0)
        for round in range(self.round + 1, self.rounds + 1):
            self.round = round
            self._run_round()
        for callback in self.callbacks.values():
            callback.on_federation_end(self)
        for observer in self.observers:
            observer.on_end(self)

    def _run_round(self) -> None:
        config = self.config
        evaluated = self.round % config.evaluate_every == 0 or self.round == self.rounds
        self.selected = select_clients(list(self.clients), config.clients_per_round, self.seed, self.round)
        for callback in self.callbacks.values():
            callback.on_round_start(self)
        with self.costs.phase("fit"):
            updates = self._collect(evaluated)
        if len(updates) < config.min_clients:
            raise FedReIDError(
                f"round {self.round}: {len(updates)} of {len(self.selected)} clients sent a good update, "
                f"min_clients={config.min_clients}; the last saved round is {self.round - 1}"
            )
        with self.costs.phase("aggregate"):
            self._aggregate(updates)
        del updates
        self.inbox.clear()
        if evaluated:
            self.evaluate_models()
        for callback in self.callbacks.values():
            callback.on_round_end(self)
        for observer in self.observers:
            observer.on_checkpoint(self)
        self.costs.close_round(self.round)
        with self.costs.phase("checkpoint"):
            self._save()
        for observer in self.observers:
            observer.on_round_end(self, self.history.of_round(self.round))

    def _collect(self, evaluated: bool) -> list[ClientUpdate]:
        collection = Collection(self, evaluated)
        updates = collection.updates()
        for update in updates:
            self.record_local(update)
            for metric, value in collection.drifts[update.client].items():
                self.record("train", update.client, metric, value)
        return updates

    def record_local(self, update: ClientUpdate) -> None:
        """Adds the training statistics and the local model's scores that an update brings."""
        record_local(self, update)

    def _aggregate(self, updates: Sequence[ClientUpdate]) -> None:
        weights: dict[str, float] = {}
        for callback in self.callbacks.values():
            callback.on_aggregation_start(self, updates, weights)
        models_of = {update.client: self.model_of(update.client) for update in updates}
        sizes = {update.client: update.num_samples for update in updates}
        self.weights, empty = normalize_within(weights, models_of, sizes)
        for model in empty:
            self.warn(f"every weight of the {model} model is zero; it is averaged by number of images")
        for client, weight in self.weights.items():
            self.record("weights", client, "weight", weight)
        models: dict[str, State] = {}
        for callback in self.callbacks.values():
            models = callback.aggregate(self, updates, self.weights, models)
        self.models = models
        for callback in self.callbacks.values():
            callback.on_aggregation_end(self, updates)

    def evaluate_models(self) -> None:
        """Every model the server holds, on the test sets of the clients that work with it, each set once.

        A test set that clients with different models share gets the mean over these clients.
        """
        evaluate_models(self)

    # checkpoints

    def best_round(self) -> int | None:
        """The evaluated round that is best by the validation sets, or without any by the test sets."""
        return best_round(self.history)[0]

    def state_dict(self) -> dict[str, Any]:
        """All that the server needs to go on after this round; tensors and plain values."""
        return {
            "round": self.round,
            "models": {name: _plain(state) for name, state in self.models.items()},
            "assignment": dict(self.assignment),
            "weights": dict(self.weights),
            "rejected": dict(self.rejected),
            "rejections": {client: dict(reasons) for client, reasons in self.rejections.items()},
            "history": self.history.state_dict(),
            "costs": self.costs.state_dict(),
            "callbacks": {name: callback.state_dict() for name, callback in self.callbacks.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes back to the end of the round that `state` was taken in; later leftovers on disk are dropped.

        Raises:
            FedReIDError: if its models are not of this network; nothing is changed.
        """
        check_models(state["models"], self.initial_backbone)
        self.round = state["round"]
        self.models = {name: dict(model) for name, model in state["models"].items()}
        self.assignment, self.rejected = dict(state["assignment"]), dict(state["rejected"])
        self.rejections = {client: dict(reasons) for client, reasons in state.get("rejections", {}).items()}
        self.weights = dict(state.get("weights", {}))
        self.history.load_state_dict(state["history"])
        self.costs.load_state_dict(state["costs"])
        for name, callback in self.callbacks.items():
            callback.load_state_dict(state["callbacks"].get(name, {}))
        self.checkpoints.forget(self.round)
        self.store.forget(self.round)

    def _save(self) -> None:
        kept = self.checkpoints.save(self.round, self.state_dict(), self.best_round())
        for client in self.selected:
            self.store.prune(client, kept)


def _plain(state: Mapping[str, Tensor]) -> State:
    return {name: value.detach().cpu() for name, value in state.items()}
