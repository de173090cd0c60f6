"""Runs the rounds: select, distribute, train, collect, weight, aggregate, evaluate, save. It names no algorithm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fedreid_pl.errors import FedReIDError, counted
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.engine import Engine
from fedreid_pl.federation.messages import ClientJob, ClientUpdate, State
from fedreid_pl.federation.own_callbacks import check_new_models, check_state
from fedreid_pl.federation.server.attempts import Attempts
from fedreid_pl.federation.server.checkpoint import Checkpoints, check_models
from fedreid_pl.federation.server.collection import Collection
from fedreid_pl.federation.server.context import RoundContext
from fedreid_pl.federation.server.evaluation import evaluate_models, evaluate_own, evaluate_unseen, record_local
from fedreid_pl.federation.server.history import best_round
from fedreid_pl.federation.server.inbox import UpdateInbox
from fedreid_pl.federation.server.observer import Observer
from fedreid_pl.federation.server.selection import check_selection, select_clients
from fedreid_pl.functional.aggregation import normalize_within


class FederationLoop:
    """Runs the rounds of an experiment.

    The loop has no access to clients' saved states. Its jobs state which state a client starts from and may delete.

    Args:
        context: state of the run that callbacks and observers receive as `federation`.
        engine: engine that runs the jobs; the caller closes it.
        callbacks: server halves by name.
        checkpoints: stores the server's state.
        observers: terminal, files, wandb; empty on processes other than the first.
        inbox: stores updates until aggregation; `None` stores them in memory.
        attempts: numbers the jobs; `None` uses a session that is not saved.
    """

    def __init__(
        self,
        context: RoundContext,
        engine: Engine,
        callbacks: Mapping[str, FederationCallback],
        checkpoints: Checkpoints,
        observers: Sequence[Observer] = (),
        inbox: UpdateInbox | None = None,
        attempts: Attempts | None = None,
    ) -> None:
        self.context, self.engine = context, engine
        self.callbacks, self.observers = dict(callbacks), list(observers)
        self.checkpoints, self.inbox = checkpoints, inbox or UpdateInbox()
        self.attempts = attempts or Attempts()
        context.session, context.attempt = self.attempts.session, self.attempts.attempt
        context.ledger.listeners.append(self._tell)
        context.on_progress = self._progress
        check_selection(context.config, len(context.clients))
        for callback in self.callbacks.values():
            callback.on_federation_start(context)

    def announce(self, job: ClientJob) -> None:
        """Tells the observers that a client starts a job; engines call it."""
        self.context.started(job.client)
        for observer in self.observers:
            observer.on_client(self.context, job.kind, job)

    def _progress(self) -> None:
        for observer in self.observers:
            observer.on_progress(self.context)

    def _tell(self, text: str) -> None:
        for observer in self.observers:
            observer.on_warning(self.context, text)

    # the rounds

    def run(self) -> None:
        """Runs all remaining rounds.

        Raises:
            FedReIDError: if fewer than `min_clients` clients sent a valid update, or a checkpoint cannot be written.
        """
        context = self.context
        context.costs.restart()
        self._summarize()
        self._load_release()
        for observer in self.observers:
            observer.on_start(context)
        if context.round == 0 and not context.history.records:
            self.evaluate_models()
            if context.history.records:
                context.costs.close_round(0)
        for round in range(context.round + 1, context.rounds + 1):
            context.round = round
            self.run_round()
        for callback in self.callbacks.values():
            callback.on_federation_end(context)
        self._summarize()
        for observer in self.observers:
            observer.on_end(context)

    def run_round(self) -> None:
        """Runs the round whose number is in the context."""
        context, config = self.context, self.context.config
        self._change_members()
        evaluated = context.round % config.evaluate_every == 0 or context.round == context.rounds
        context.selected = select_clients(list(context.clients), config.clients_per_round, context.seed, context.round)
        for callback in self.callbacks.values():
            callback.on_round_start(context)
        with context.costs.phase("fit"):
            updates = self._collect(evaluated)
        if len(updates) < config.min_clients:
            raise FedReIDError(
                f"round {context.round}: {len(updates)} of {len(context.selected)} clients sent a valid update, but "
                f"min_clients={config.min_clients}. The last saved round is {context.round - 1}; the warnings above "
                "state what each client lacked"
            )
        with context.costs.phase("aggregate"):
            self._aggregate(updates)
        del updates
        self.inbox.clear()
        self._save_release()
        if evaluated:
            self.evaluate_models()
        for callback in self.callbacks.values():
            callback.on_round_end(context)
        self._summarize()
        for observer in self.observers:
            observer.on_checkpoint(context)
        context.costs.close_round(context.round)
        with context.costs.phase("checkpoint"):
            self._save()
        for observer in self.observers:
            observer.on_round_end(context, context.history.of_round(context.round))

    def _change_members(self) -> None:
        """Updates the members if the engine's clients join and leave, and informs the callbacks of changes.

        Raises:
            FedReIDError: if fewer than `min_clients` members remain.
        """
        context, least = self.context, self.context.config.min_clients
        if (members := getattr(self.engine, "members", None)) is not None:
            context.set_members(members())
        if changes := context.note_members():
            for callback in self.callbacks.values():
                callback.on_members_change(context, changes)
        if len(context.clients) < least:
            raise FedReIDError(
                f"round {context.round}: {counted(len(context.clients), 'client')} left, but min_clients={least}. The "
                f"last saved round is {context.round - 1}; run the same command again when more clients are available"
            )

    def _summarize(self) -> None:
        self.context.algorithms = {
            name: found for name, callback in self.callbacks.items() if (found := callback.summary())
        }

    def _save_release(self) -> None:
        """Saves the callbacks' release state before the new models are sent to anyone."""
        states = {name: state for name, callback in self.callbacks.items() if (state := callback.release_state())}
        if states:
            self.checkpoints.save_release(self.context.round, states)

    def _load_release(self) -> None:
        round, states = self.checkpoints.release()
        for name, callback in self.callbacks.items():
            if name in states:
                callback.load_release_state(states[name], round)

    def _collect(self, evaluated: bool) -> list[ClientUpdate]:
        context = self.context
        collection = Collection(context, self.engine, self.callbacks, self.inbox, self.attempts, evaluated)
        updates = collection.updates()
        for update in updates:
            record_local(context, update)
            for metric, value in collection.drifts[update.client].items():
                context.record("train", update.client, metric, value)
        return updates

    def _aggregate(self, updates: Sequence[ClientUpdate]) -> None:
        context = self.context
        weights: dict[str, float] = {}
        for callback in self.callbacks.values():
            callback.on_aggregation_start(context, updates, weights)
        models_of = {update.client: context.model_of(update.client) for update in updates}
        sizes = {update.client: update.num_samples for update in updates}
        context.weights, empty = normalize_within(weights, models_of, sizes)
        for model in empty:
            context.warn(f"all clients of the {model} model have weight zero; they are weighted by number of images")
        for client, weight in context.weights.items():
            context.record("weights", client, "weight", weight)
        models: dict[str, State] = {}
        for callback in self.callbacks.values():
            models = callback.aggregate(context, updates, context.weights, models)
        check_new_models(models, context.initial_backbone, self.callbacks, context.round)
        context.models = models
        for callback in self.callbacks.values():
            callback.on_aggregation_end(context, updates)

    def evaluate_models(self) -> None:
        """Evaluates all models of the server, see `evaluation.evaluate_models`, also on unseen test sets."""
        evaluate_models(self.context, self.engine)
        evaluate_unseen(self.context, self.engine)

    def evaluate_own(self) -> None:
        """Evaluates every client's own model, see `evaluation.evaluate_own`, also on unseen test sets."""
        evaluate_own(self.context, self.engine)
        evaluate_unseen(self.context, self.engine)

    # checkpoints

    def best_round(self) -> int | None:
        """Returns the best evaluated round by the validation sets; without validation sets, by the test sets."""
        return best_round(self.context.history)[0]

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that the server needs to resume after this round: tensors and plain values."""
        context = self.context
        return {
            "round": context.round,
            "models": {name: _plain(state) for name, state in context.models.items()},
            "assignment": dict(context.assignment),
            "weights": dict(context.weights),
            "turns": dict(context.turns),
            "threads": torch.get_num_threads(),
            **context.ledger.state_dict(),
            "callbacks": {
                name: check_state(name, "state_dict", callback.state_dict())
                for name, callback in self.callbacks.items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the end of the round in which `state` was saved, and deletes later checkpoints.

        Raises:
            FedReIDError: if the models in `state` do not fit the network; nothing is changed.
        """
        context = self.context
        check_models(state["models"], context.initial_backbone)
        context.round = state["round"]
        context.models = {name: dict(model) for name, model in state["models"].items()}
        context.assignment, context.weights = dict(state["assignment"]), dict(state.get("weights", {}))
        # without a record of its last turn, a client starts from its newest state up to this round
        context.turns = dict(state.get("turns", dict.fromkeys(context.clients, context.round)))
        context.ledger.load_state_dict(state)
        if not len(context.ledger.members):  # old checkpoints have no members; no client joined or left then
            context.ledger.members.note(1, context.clients)
        for name, callback in self.callbacks.items():
            callback.load_state_dict(state["callbacks"].get(name, {}))
        self.checkpoints.forget(context.round)
        self._set_keeps()

    def _save(self) -> None:
        self.checkpoints.save(self.context.round, self.state_dict(), self.best_round())
        self._set_keeps()

    def _set_keeps(self) -> None:
        """Sets the rounds to which the server can return; they depend only on the round, not on existing files."""
        round, best = self.context.round, self.best_round()
        latest = range(max(round - self.checkpoints.keep, 0) + 1, round + 1)
        self.context.keeps = "/".join(str(number) for number in sorted({*latest, best or round}))


def _plain(state: Mapping[str, Tensor]) -> State:
    return {name: value.detach().cpu() for name, value in state.items()}
