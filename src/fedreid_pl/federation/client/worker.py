"""Runs a client's jobs: a job arrives, the client trains or evaluates for one turn, and an update is returned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import pytorch_lightning as pl
from torch import Tensor

from fedreid_pl.client import Outbox, ReIDClient
from fedreid_pl.config import Config
from fedreid_pl.data.datamodule import ReIDDataModule
from fedreid_pl.federation.callback import FederationCallback, step_hooks
from fedreid_pl.federation.client.checks import check_job
from fedreid_pl.federation.client.states import ClientStates, MakeCallbacks
from fedreid_pl.federation.client.store import KeptState, LostState
from fedreid_pl.federation.client.time_limit import TimeLimit
from fedreid_pl.federation.messages import ClientJob, ClientUpdate, RejectedJob
from fedreid_pl.federation.own_callbacks import check_state
from fedreid_pl.functional.finite import first_not_finite
from fedreid_pl.functional.randomness import derive_seed, seed_generators
from fedreid_pl.metrics.retrieval import RankedSets
from fedreid_pl.metrics.tested_module import retrieval_options
from fedreid_pl.models.compiled import CompiledTrunk
from fedreid_pl.models.weights import Backbone, copy_state

MakeTrainer = Callable[[Iterable[pl.Callback]], pl.Trainer]
Look = dict[str, Any]
"""Details behind the scores of one test set: tensors and plain values, which never leave one trust domain."""
LookAt = Callable[[ClientJob, bool, str, RankedSets], Look | None]
"""Takes the job, whether the job trained the client, the name of a test set and its ranked lists."""


class Turn(NamedTuple):
    """The Lightning objects of one turn of one client."""

    module: ReIDClient
    datamodule: ReIDDataModule
    callbacks: dict[str, FederationCallback]
    trainer: pl.Trainer
    limit: TimeLimit


class Diverged(ValueError):
    """Raised if training ended in NaN or infinite values; a repetition would end in the same way."""


class ClientWorker:
    """Runs the turns of clients, one at a time, with one backbone that the clients share.

    Args:
        config: configuration of the run.
        datamodules: data of each client, by client.
        backbone: the network; its weights at construction are the initial weights of the run.
        store: stores the clients' states between turns, see `client.store`.
        make_callbacks: creates new client halves for every turn.
        make_trainer: creates a Trainer with the given callbacks.
        compiled: the backbone's trunk for training batches, if it is compiled.
        look_at: summarises the details behind a test set's scores, for jobs that request it; `None` keeps no details.
        session: the only session whose jobs are accepted; `None` accepts every session.

    Attributes:
        initial: initial weights of the run.
        states: loads and saves the clients' states.
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
        self.states = ClientStates(config, datamodules, backbone, store, make_callbacks)
        self.initial = {name: value.clone() for name, value in backbone.state_dict().items()}
        self.make_callbacks, self.make_trainer = make_callbacks, make_trainer
        self.compiled, self.look_at, self.session = compiled, look_at, session
        self._looks: list[Look] = []

    def do(self, job: ClientJob) -> ClientUpdate:
        """Runs a job of either kind."""
        return self.fit(job) if job.kind == "fit" else self.evaluate(job)

    def take_looks(self) -> list[Look]:
        """Returns and removes the details behind the scores since the last call; the engine forwards them."""
        looks, self._looks = self._looks, []
        return looks

    def fit(self, job: ClientJob) -> ClientUpdate:
        """Trains for `local_epochs` or `local_steps`; evaluates the trained model if `job.config["evaluate"]` is set.

        Args:
            job: a `fit` job.

        Returns:
            The update with the exchanged entries of the trained backbone.

        Raises:
            FedReIDError: for errors that the user can correct, such as an unreadable image.
            RejectedJob: if the job is not valid; the client's state does not change.
            Diverged: if training ended in NaN or infinite weights; the turn is not saved.
            TurnTimeout: if the turn takes longer than `client_timeout` seconds; the turn is not saved.
        """
        with self._turn(job, trained=True) as (module, datamodule, callbacks, trainer, limit):
            with limit:
                trainer.fit(module, datamodule=datamodule)
                if job.config.get("evaluate"):
                    trainer.test(module, datamodule=datamodule, verbose=False)
            trained = {"head": module.head.state_dict(), "backbone": self.backbone.state_dict()}
            _check_finite({**trained, "clones": module.clones.state_dict()})
            kept: dict[str, Any] = {"head": trained["head"]} if job.exchanged else dict(trained)
            states = {
                name: check_state(name, "client_state_dict", callback.client_state_dict())
                for name, callback in callbacks.items()
            }
            kept["callbacks"] = {name: state for name, state in states.items() if state}
            if self.config.optimizer_state == "keep":
                kept["optimizer"] = module.optimizer_state()
            self.states.save(job, kept)
            return self._update(job, module, trainer)

    def evaluate(self, job: ClientJob) -> ClientUpdate:
        """Evaluates the backbone's entries in the job together with the client's own entries.

        The job names the test sets in `job.config["tests"]`; otherwise all test sets of the client are evaluated. The
        client neither trains nor saves anything.

        Raises:
            RejectedJob: if the job is not valid.
        """
        with self._turn(job, trained=False) as (module, datamodule, _, trainer, limit):
            with limit:
                trainer.test(module, datamodule=datamodule, verbose=False)
            return self._update(job, module, trainer)

    @contextmanager
    def _turn(self, job: ClientJob, trained: bool) -> Iterator[Turn]:
        """Creates the objects of a turn; afterwards only the backbone's weights stay in memory.

        A datamodule exists as long as the run. Lightning stores the Trainer in it, and thus the optimizer's momentum,
        the head and the messages of the client's last turn.
        """
        if trained != (job.kind == "fit"):
            raise RejectedJob(f"the job has kind '{job.kind}', expected '{'fit' if trained else 'evaluate'}'")
        callbacks = self.make_callbacks()
        if job.client not in self.datamodules:
            raise RejectedJob("the job is for a client whose data this process does not have")
        tests = self.datamodules[job.client].tests
        last = self.states.last_turn(job.client)
        check_job(job, self.backbone, self.initial, callbacks, last, self.session, tests)
        module, datamodule = self._prepare(job, callbacks, trained)
        limit = TimeLimit(self.config.client_timeout)
        trainer = self.make_trainer([*callbacks.values(), limit])
        try:
            yield Turn(module, datamodule, callbacks, trainer, limit)
        finally:
            datamodule.trainer = None
            trainer.optimizers = []
            # the garbage collector frees the Trainer only later
            module.job, module.outbox, module.inspect = None, Outbox(), None
            module.clones.release()
            self.backbone.zero_grad(set_to_none=True)

    def _prepare(
        self, job: ClientJob, callbacks: dict[str, FederationCallback], trained: bool
    ) -> tuple[ReIDClient, ReIDDataModule]:
        config, datamodule, backbone = self.config, self.datamodules[job.client], self.backbone
        seed = derive_seed(config.seed, job.round, job.client)
        seed_generators(derive_seed(seed, "dropout", 0))  # equal in all processes
        head = self.states.new_head(job.client)
        kept = self.states.load(job, head)
        if "head" in kept:
            head.load_state_dict(kept["head"])
        copy_state(kept.get("backbone", self.initial), backbone)
        backbone.train()  # a failed evaluation leaves the backbone in eval mode
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
        if trainer.world_size > 1:  # all ranks report equal numbers, bit by bit
            metrics = trainer.strategy.broadcast(metrics)
        samples = self.datamodules[job.client].num_samples
        outbox = module.outbox
        return ClientUpdate(job.round, job.client, outbox.backbone, samples, metrics, outbox.extras)


def _restore(callback: FederationCallback, state: dict[str, Any], place: str, name: str) -> None:
    try:
        callback.load_client_state_dict(state)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise LostState(
            f"{place}: the saved state of callbacks.{name} has another format than this callback writes "
            f"({type(error).__name__}); restore the client's own files, or start again with resume=never"
        ) from error


def _check_finite(states: Mapping[str, Mapping[str, Tensor]]) -> None:
    for part, state in states.items():
        name = first_not_finite(state)
        if name is not None:
            raise Diverged(f"training ended in NaN or infinite values ({part} '{name}'); try a smaller learning rate")
