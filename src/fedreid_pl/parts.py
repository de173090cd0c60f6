"""The parts of a run, put together from its configuration and its data: clients, their worker, the loop."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from fedreid_pl.config import Config, lineage
from fedreid_pl.data.cache_folder import chosen_folder
from fedreid_pl.data.datamodule import ReIDDataModule
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.data.images import ImagePool
from fedreid_pl.engines.sequential import SequentialEngine
from fedreid_pl.federation.client.store import ClientStore
from fedreid_pl.federation.client.trainer import build_trainer
from fedreid_pl.federation.client.worker import ClientWorker
from fedreid_pl.federation.messages import ClientJob
from fedreid_pl.federation.server.checkpoint import Checkpoints
from fedreid_pl.federation.server.inbox import UpdateInbox
from fedreid_pl.federation.server.loop import FederationLoop
from fedreid_pl.federation.server.network import ServerNetwork
from fedreid_pl.federation.server.observer import Observer
from fedreid_pl.inspection import Inspector
from fedreid_pl.models.compiled import CompiledTrunk
from fedreid_pl.reporting.status import Status
from fedreid_pl.reporting.terminal import say


@dataclass
class Parts:
    """What training and evaluation both need."""

    data: FederatedData
    pool: ImagePool
    worker: ClientWorker
    store: ClientStore

    def inspector(self, config: Config, round: int, trainer: pl.Trainer) -> Inspector:
        """Has the worker's evaluations of a round looked at."""
        inspector = Inspector(config, self.data, self.pool, self.worker, round, trainer.strategy.root_device)
        self.worker.inspect = inspector
        return inspector


def build_parts(
    config: Config,
    data: FederatedData,
    backbone: Any,
    folder: Path,
    trainer: pl.Trainer,
    make_callbacks: Any,
    writable: bool = True,
    status: Status | None = None,
) -> Parts:
    """The clients' data and the worker that does their turns; `writable=False` if the clients keep nothing."""
    c = config.data
    pool = ImagePool(c.height, c.width, c.cache, config.trainer.devices, c.workers)
    pool.prepare(data.datasets, chosen_folder(c.cache_dir) / "images", status, say)  # whoever decodes says so
    if status is not None:
        status.done()
    for table in data.tables():
        pool.source(table)
    store = ClientStore(folder / "clients", writable and trainer.is_global_zero)
    datamodules = {
        name: ReIDDataModule(client, data.tests_of(name), pool, config.data, config.batch_size)
        for name, client in data.clients.items()
    }
    make_trainer = lambda callbacks: build_trainer(config, list(callbacks))  # noqa: E731
    worker = ClientWorker(
        *(config, datamodules, backbone, store, make_callbacks, make_trainer),
        compiled=_compiled(config, backbone, trainer),
    )
    return Parts(data, pool, worker, store)


def _compiled(config: Config, backbone: Any, trainer: pl.Trainer) -> CompiledTrunk | None:
    if config.trainer.compile == "none":
        return None
    batch = len(range(trainer.global_rank, config.batch_size, trainer.world_size))
    return CompiledTrunk(backbone, config.trainer.compile, batch)


def build_loop(
    config: Config,
    parts: Parts,
    trainer: pl.Trainer,
    make_callbacks: Any,
    folder: Path,
    observers: list[Observer],
    writable: bool = True,
) -> FederationLoop:
    """The loop over these parts, before its first round; `writable=False` if nothing is saved."""
    data, worker = parts.data, parts.worker

    def announce(phase: str, job: ClientJob) -> None:
        for observer in observers:
            observer.on_client(loop, phase, job)

    public = parts.pool.source(data.public) if data.public is not None else None
    loop = FederationLoop(
        config,
        {name: datamodule.num_samples for name, datamodule in worker.datamodules.items()},
        {name: client.tests for name, client in data.clients.items()},
        SequentialEngine(worker, announce, trainer.world_size),
        make_callbacks(),
        worker.initial,
        frozenset(name for name, _ in worker.backbone.named_buffers()),
        Checkpoints(folder / "checkpoints", writable and trainer.is_global_zero, lineage=lineage(config)),
        parts.store,
        ServerNetwork(lambda: copy.deepcopy(worker.backbone), public, trainer.strategy.root_device),
        observers,
        UpdateInbox(folder / "checkpoints") if writable else None,
    )
    return loop
