"""What happens at a client: a job comes in, a turn of training or evaluation is done, an update goes out."""

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
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.client.store import ClientStore
from fedreid_pl.federation.client.time_limit import TimeLimit
from fedreid_pl.federation.messages import ClientJob, ClientUpdate
from fedreid_pl.functional.finite import first_not_finite
from fedreid_pl.functional.randomness import derive_seed, generator, seed_generators
from fedreid_pl.metrics.retrieval import RankedSets
from fedreid_pl.models.compiled import CompiledTrunk
from fedreid_pl.models.ide import build_head
from fedreid_pl.models.weights import Backbone, copy_state

MakeCallbacks = Callable[[], dict[str, FederationCallback]]
MakeTrainer = Callable[[Iterable[pl.Callback]], pl.Trainer]
Inspect = Callable[[ClientJob, bool, str, RankedSets], None]
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
        store: what clients keep between turns.
        make_callbacks: new client halves for every turn.
        make_trainer: a Trainer with the given callbacks.
        compiled: the backbone's trunk for training batches, if it is compiled.

    Attributes:
        inspect: looks at what test sets' scores are computed from, on this machine only; `None`: nobody does.
    """

    def __init__(
        self,
        config: Config,
        datamodules: Mapping[str, ReIDDataModule],
        backbone: Backbone,
        store: ClientStore,
        make_callbacks: MakeCallbacks,
        make_trainer: MakeTrainer,
        compiled: CompiledTrunk | None = None,
    ) -> None:
        self.config, self.datamodules, self.store = config, datamodules, store
        self.backbone = backbone
        self.initial = {name: value.clone() for name, value in backbone.state_dict().items()}
        self.make_callbacks, self.make_trainer = make_callbacks, make_trainer
        self.compiled = compiled
        self.inspect: Inspect | None = None

    def fit(self, job: ClientJob) -> ClientUpdate:
        """Trains for `local_epochs`; with `job.config["evaluate"]` evaluates the trained model as well.

        Raises:
            FedReIDError: for a mistake of the user, such as an unreadable image.
            Diverged: if training ended in NaN or infinite weights; nothing of the turn is kept.
            TurnTimeout: if the turn takes longer than `client_timeout`; nothing of it is kept.
        """
        with self._turn(job, before=job.round, trained=True) as (module, datamodule, callbacks, trainer, limit):
            with limit:
                trainer.fit(module, datamodule=datamodule)
                if job.config.get("evaluate"):
                    trainer.test(module, datamodule=datamodule, verbose=False)
            trained = {"head": module.head.state_dict(), "backbone": self.backbone.state_dict()}
            _check_finite(trained)
            kept = {"head": trained["head"]} if module.outbox.backbone else dict(trained)
            states = {name: callback.client_state_dict() for name, callback in callbacks.items()}
            kept["callbacks"] = {name: state for name, state in states.items() if state}
            if self.config.optimizer_state == "keep":
                kept["optimizer"] = module.optimizer_state()
            self.store.save(job.client, job.round, kept)
            return self._update(job, module, trainer)

    def evaluate(self, job: ClientJob) -> ClientUpdate:
        """Evaluates the job's backbone (or the client's own) on the client's test sets, or on those that
        `job.config["tests"]` names (separated by `/`); nothing is trained or kept. What the client kept in its
        last turn up to the job's round is there."""
        with self._turn(job, before=job.round + 1, trained=False) as (module, datamodule, _, trainer, limit):
            with limit:
                trainer.test(module, datamodule=datamodule, verbose=False)
            return self._update(job, module, trainer)

    @contextmanager
    def _turn(self, job: ClientJob, before: int, trained: bool) -> Iterator[Turn]:
        """The parts of a turn; afterwards nothing of it is in memory but the backbone's weights.

        A datamodule lives as long as the run, and Lightning leaves the Trainer in it, and with the Trainer the
        optimizer's momentum, the head and the messages of the client's last turn.
        """
        module, datamodule, callbacks = self._prepare(job, before, trained)
        limit = TimeLimit(self.config.client_timeout)
        trainer = self.make_trainer([*callbacks.values(), limit])
        try:
            yield Turn(module, datamodule, callbacks, trainer, limit)
        finally:
            datamodule.trainer = None
            trainer.optimizers = []
            # the garbage collector takes its time to find the Trainer
            module.job, module.outbox, module.inspect = None, Outbox(), None
            self.backbone.zero_grad(set_to_none=True)

    def _prepare(
        self, job: ClientJob, before: int, trained: bool
    ) -> tuple[ReIDClient, ReIDDataModule, dict[str, FederationCallback]]:
        config, datamodule, backbone = self.config, self.datamodules[job.client], self.backbone
        seed = derive_seed(config.seed, job.round, job.client)
        seed_generators(derive_seed(seed, "dropout", 0))  # the same in all processes
        kept: dict[str, Any] = self.store.load(job.client, before) or {}
        draws = generator(config.seed, job.client, "head")
        head = build_head(backbone.feature_dim, datamodule.num_identities, draws, bias=backbone.head_bias)
        try:
            if "head" in kept:  # not on data that it does not belong to
                head.load_state_dict(kept["head"])
            copy_state(kept.get("backbone", self.initial), backbone)
        except (RuntimeError, TypeError) as error:
            raise FedReIDError(
                f"{self.store.folder / job.client}: what the client kept does not fit its data or the network; "
                "put its own files back, or resume=never to begin anew"
            ) from error
        backbone.train()  # an evaluation that raised leaves it in eval mode
        callbacks = self.make_callbacks()
        for name, callback in callbacks.items():
            if name in kept.get("callbacks", {}):
                callback.load_client_state_dict(kept["callbacks"][name])
        tests = job.config.get("tests")
        datamodule.begin_turn(seed, str(tests).split("/") if tests else None)
        epochs_before = max(job.round - 1, 0) * config.local_epochs
        total_epochs = config.rounds * config.local_epochs
        retrieval = {
            "keep_unmatched": config.data.keep_unmatched,
            "single_shot": config.data.single_shot,
            "seed": config.data.split_seed,
        }
        inspect = partial(self.inspect, job, trained) if self.inspect else None
        module = ReIDClient(
            *(backbone, head, config.optim, epochs_before, job, config.loss, total_epochs, retrieval),
            inspect=inspect,
            compiled=self.compiled,
            optimizer_state=kept.get("optimizer") if config.optimizer_state == "keep" else None,
        )
        return module, datamodule, callbacks

    def _update(self, job: ClientJob, module: ReIDClient, trainer: pl.Trainer) -> ClientUpdate:
        metrics = dict(module.outbox.metrics)
        for test, scores in module.scores.items():
            metrics |= {f"test/{test}/{name}": value for name, value in scores.items()}
        if trainer.world_size > 1:  # the ranks agree on every number, to the bit
            metrics = trainer.strategy.broadcast(metrics)
        samples = self.datamodules[job.client].num_samples
        outbox = module.outbox
        return ClientUpdate(job.round, job.client, outbox.backbone, samples, metrics, outbox.extras)


def _check_finite(states: Mapping[str, Mapping[str, Tensor]]) -> None:
    for part, state in states.items():
        name = first_not_finite(state)
        if name is not None:
            raise Diverged(f"training ended in NaN or infinite values ({part} '{name}'); try a smaller learning rate")
