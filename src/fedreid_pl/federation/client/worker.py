"""What happens at a client: a job comes in, a turn of training or evaluation is done, an update goes out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from fedreid_pl.client import Outbox, ReIDClient
from fedreid_pl.config import Config
from fedreid_pl.data.datamodule import ReIDDataModule
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.callback import FederationCallback, step_hooks
from fedreid_pl.federation.client.checks import check_job
from fedreid_pl.federation.client.kept import check_kept
from fedreid_pl.federation.client.persons import (
    check_marks,
    known_rows,
    person_marks,
    with_persons,
)
from fedreid_pl.federation.client.store import KeptState, LostState
from fedreid_pl.federation.client.time_limit import TimeLimit
from fedreid_pl.federation.messages import ClientJob, ClientUpdate, RejectedJob
from fedreid_pl.functional.finite import first_not_finite
from fedreid_pl.functional.randomness import derive_seed, generator, seed_generators
from fedreid_pl.metrics.retrieval import RankedSets
from fedreid_pl.metrics.tested_module import retrieval_options
from fedreid_pl.models.compiled import CompiledTrunk
from fedreid_pl.models.ide import build_head
from fedreid_pl.models.weights import Backbone, copy_state

MakeCallbacks = Callable[[], dict[str, FederationCallback]]
MakeTrainer = Callable[[Iterable[pl.Callback]], pl.Trainer]
Look = dict[str, Any]
"""What is kept behind the scores of one test set: tensors and plain values, which stay inside one trust domain."""
LookAt = Callable[[ClientJob, bool, str, RankedSets], Look | None]
"""Takes the job, whether its client was trained in it, a test set's name and what its scores come from."""


class Turn(NamedTuple):
    """What Lightning works with in one turn of one client."""

    module: ReIDClient
    datamodule: ReIDDataModule
    callbacks: dict[str, FederationCallback]
    trainer: pl.Trainer
    limit: TimeLimit


class Diverged(ValueError):
    """Training ended in NaN or infinite values, as it would again."""


class ClientWorker:
    """Does the turns of clients, one at a time, with one backbone that is lent to whoever trains.

    Args:
        config: the experiment.
        datamodules: each client's data, by client.
        backbone: the network; its weights when the worker is made are the initial ones.
        store: what clients keep between turns, see `client.store`.
        make_callbacks: new client halves for every turn.
        make_trainer: a Trainer with the given callbacks.
        compiled: the backbone's trunk for training batches, if it is compiled.
        look_at: sums up what a test set's scores are computed from, for jobs that ask for it; `None`: nothing is kept.
        session: the only one that jobs may be of; `None`: any.
    """

    def __init__(
        self,
        config: Config,
        datamodules: Mapping[str, ReIDDataModule],
        backbone: Backbone,
        store: KeptState,
        make_callbacks: MakeCallbacks,
        make_trainer: MakeTrainer,
        compiled: CompiledTrunk | None = None,
        look_at: LookAt | None = None,
        session: str | None = None,
    ) -> None:
        self.config, self.datamodules, self.store = config, datamodules, store
        self.backbone = backbone
        self.initial = {name: value.clone() for name, value in backbone.state_dict().items()}
        self.make_callbacks, self.make_trainer = make_callbacks, make_trainer
        self.compiled, self.look_at, self.session = compiled, look_at, session
        self._looks: list[Look] = []
        self._turns: dict[str, dict[str, Any] | None] = {}  # the last one of each client
        self._marks: dict[str, Tensor] = {}  # of the training pictures, see `client.persons`

    def do(self, job: ClientJob) -> ClientUpdate:
        """Does a job of either kind."""
        return self.fit(job) if job.kind == "fit" else self.evaluate(job)

    def take_looks(self) -> list[Look]:
        """What was kept behind the scores since the last call, for the engine to hand on beside the update."""
        looks, self._looks = self._looks, []
        return looks

    def fit(self, job: ClientJob) -> ClientUpdate:
        """Trains for `local_epochs` or `local_steps`; evaluates the trained model with `job.config["evaluate"]`.

        Raises:
            FedReIDError: for a mistake of the user, such as an unreadable image.
            RejectedJob: for a job that no honest server sends; nothing is changed.
            Diverged: if training ended in NaN or infinite weights; nothing of the turn is kept.
            TurnTimeout: if the turn takes longer than `client_timeout`; nothing of it is kept.
        """
        with self._turn(job, trained=True) as (module, datamodule, callbacks, trainer, limit):
            with limit:
                trainer.fit(module, datamodule=datamodule)
                if job.config.get("evaluate"):
                    trainer.test(module, datamodule=datamodule, verbose=False)
            trained = {"head": module.head.state_dict(), "backbone": self.backbone.state_dict()}
            _check_finite({**trained, "clones": module.clones.state_dict()})
            kept: dict[str, Any] = {"head": trained["head"]} if job.exchanged else dict(trained)
            states = {name: callback.client_state_dict() for name, callback in callbacks.items()}
            kept["callbacks"] = {name: state for name, state in states.items() if state}
            kept["persons"] = self._marks_of(job.client)
            kept["turn"] = {"session": job.session, "round": job.round, "attempt": job.attempt}
            self._turns[job.client] = kept["turn"]
            if self.config.optimizer_state == "keep":
                kept["optimizer"] = module.optimizer_state()
            self.store.save(job.client, job.round, kept)
            return self._update(job, module, trainer)

    def evaluate(self, job: ClientJob) -> ClientUpdate:
        """Evaluates the entries of the backbone that the job brings, and the client's own for the rest.

        On the client's test sets, or on those that `job.config["tests"]` names; nothing is trained or kept.

        Raises:
            RejectedJob: for a job that no honest server sends.
        """
        with self._turn(job, trained=False) as (module, datamodule, _, trainer, limit):
            with limit:
                trainer.test(module, datamodule=datamodule, verbose=False)
            return self._update(job, module, trainer)

    @contextmanager
    def _turn(self, job: ClientJob, trained: bool) -> Iterator[Turn]:
        """The parts of a turn; afterwards nothing of it is in memory but the backbone's weights.

        A datamodule lives as long as the run, and Lightning leaves the Trainer in it, and with the Trainer the
        optimizer's momentum, the head and the messages of the client's last turn.
        """
        if trained != (job.kind == "fit"):
            raise RejectedJob(f"is of kind '{job.kind}'")
        callbacks = self.make_callbacks()
        if job.client not in self.datamodules:
            raise RejectedJob("is for a client that is not here")
        tests = self.datamodules[job.client].tests
        check_job(job, self.backbone, self.initial, callbacks, self._last_turn(job.client), self.session, tests)
        module, datamodule = self._prepare(job, callbacks, trained)
        limit = TimeLimit(self.config.client_timeout)
        trainer = self.make_trainer([*callbacks.values(), limit])
        try:
            yield Turn(module, datamodule, callbacks, trainer, limit)
        finally:
            datamodule.trainer = None
            trainer.optimizers = []
            # the garbage collector takes its time to find the Trainer
            module.job, module.outbox, module.inspect = None, Outbox(), None
            module.clones.release()
            self.backbone.zero_grad(set_to_none=True)

    def _last_turn(self, client: str) -> dict[str, Any] | None:
        """Session, round and attempt of the last turn that the client kept something of."""
        newest = self.store.newest(client)
        known = self._turns.get(client)
        if newest is not None and (known is None or known.get("round") != newest):
            try:
                found = (self.store.load(client, newest + 1) or {}).get("turn")
            except FedReIDError:  # damaged, or being deleted by another process: the state is read on its own later
                found = None
            self._turns[client] = found if isinstance(found, dict) else None
        return self._turns.get(client) if newest is not None else None

    def drop_old(self, job: ClientJob) -> int:
        """Deletes, before a turn, what the server can no longer go back to; returns the round that the job starts from.

        An evaluation deletes nothing.
        """
        start = job.config.get("starts_from", job.round - (job.kind == "fit"))
        assert isinstance(start, int)  # the job was checked
        if job.kind == "fit":
            keeps = str(job.config.get("keeps", ""))
            self.store.drop(job.client, start, [int(part) for part in keeps.split("/") if part])
        return start

    def kept(self, job: ClientJob, head: nn.Module | None = None) -> dict[str, Any]:
        """Returns the state that a job starts from, nothing for a client without one; see `drop_old`.

        Args:
            job: of a client of this worker.
            head: one that fits the client's data; `None` makes one.

        Raises:
            LostState: if there is a state that cannot be used.
        """
        head = self._new_head(job.client) if head is None else head
        fitted = partial(self._fitting, job.client, head.state_dict())
        return self.store.load(job.client, self.drop_old(job) + 1, fitted) or {}

    def check_persons(self, client: str) -> int:
        """Holds the newest state of a client against its pictures, which may have changed since.

        Returns:
            How many persons of the client are new to that state; zero for a client without one.

        Raises:
            FedReIDError: if a callback cannot go on with the client's persons as they are now.
            LostState: if the state cannot be used.
        """
        if (newest := self.store.newest(client)) is None:
            return 0
        state = self.store.load(client, newest + 1, partial(self._fitting, client, self._new_head(client).state_dict()))
        if state is None or "persons" not in state:
            return 0
        return known_rows(state["persons"], self._marks_of(client)).count(None)

    def _fitting(self, client: str, head: dict[str, Tensor], state: dict[str, Any]) -> dict[str, Any]:
        """What a client kept, with its head made to fit its persons as they are now.

        Raises:
            ValueError: for a state that is not of this client.
            FedReIDError: if a callback cannot go on with these persons.
        """
        check_marks(state)
        marks, now = state.get("persons"), self._marks_of(client)
        if marks is not None and not torch.equal(marks, now):
            rows = known_rows(marks, now)
            if not any(row is not None for row in rows):
                raise ValueError("its head does not fit its data: none of its persons is among the training pictures")
            if rows != list(range(len(state["head"]["weight"]))):
                state = with_persons(state, head, rows, self.make_callbacks())
        check_kept(state, head=head, backbone=self.initial)
        return state

    def _marks_of(self, client: str) -> Tensor:
        if client not in self._marks:
            self._marks[client] = person_marks(self.datamodules[client].client.train, client)
        return self._marks[client]

    def _new_head(self, client: str) -> nn.Module:
        draws = generator(self.config.seed, client, "head")
        identities = self.datamodules[client].num_identities
        return build_head(self.backbone.feature_dim, identities, draws, bias=self.backbone.head_bias)

    def _prepare(
        self, job: ClientJob, callbacks: dict[str, FederationCallback], trained: bool
    ) -> tuple[ReIDClient, ReIDDataModule]:
        config, datamodule, backbone = self.config, self.datamodules[job.client], self.backbone
        seed = derive_seed(config.seed, job.round, job.client)
        seed_generators(derive_seed(seed, "dropout", 0))  # the same in all processes
        head = self._new_head(job.client)
        kept = self.kept(job, head)
        if "head" in kept:
            head.load_state_dict(kept["head"])
        copy_state(kept.get("backbone", self.initial), backbone)
        backbone.train()  # an evaluation that raised leaves it in eval mode
        for name, callback in callbacks.items():
            if name in kept.get("callbacks", {}):
                _restore(callback, kept["callbacks"][name], self.store.place(job.client), name)
        tests = job.config.get("tests")
        datamodule.begin_turn(seed, str(tests).split("/") if tests else None)
        epochs_before = max(job.round - 1, 0) * config.epochs_per_round
        total_epochs = config.rounds * config.epochs_per_round
        inspect = partial(self._look, job, trained) if self.look_at and job.config.get("inspect") else None
        module = ReIDClient(
            *(backbone, head, config.optim, epochs_before, job, config.loss, total_epochs),
            retrieval_options=retrieval_options(config),
            inspect=inspect,
            compiled=self.compiled,
            optimizer_state=kept.get("optimizer") if config.optimizer_state == "keep" else None,
            seed=seed,
            **step_hooks(callbacks),
        )
        return module, datamodule

    def _look(self, job: ClientJob, trained: bool, test: str, sets: RankedSets) -> None:
        assert self.look_at is not None
        if (look := self.look_at(job, trained, test, sets)) is not None:
            self._looks.append(look)

    def _update(self, job: ClientJob, module: ReIDClient, trainer: pl.Trainer) -> ClientUpdate:
        metrics = dict(module.outbox.metrics)
        for test, scores in module.scores.items():
            metrics |= {f"test/{test}/{name}": value for name, value in scores.items()}
        if trainer.world_size > 1:  # the ranks agree on every number, to the bit
            metrics = trainer.strategy.broadcast(metrics)
        samples = self.datamodules[job.client].num_samples
        outbox = module.outbox
        return ClientUpdate(job.round, job.client, outbox.backbone, samples, metrics, outbox.extras)


def _restore(callback: FederationCallback, state: dict[str, Any], place: str, name: str) -> None:
    try:
        callback.load_client_state_dict(state)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise LostState(
            f"{place}: what the client kept for callbacks.{name} is not what it writes ({type(error).__name__}); put "
            "its own files back, or begin anew with resume=never"
        ) from error


def _check_finite(states: Mapping[str, Mapping[str, Tensor]]) -> None:
    for part, state in states.items():
        name = first_not_finite(state)
        if name is not None:
            raise Diverged(f"training ended in NaN or infinite values ({part} '{name}'); try a smaller learning rate")
