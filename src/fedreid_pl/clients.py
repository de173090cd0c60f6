"""The clients' side of a run, from its configuration and its data; no part of the server is loaded for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from fedreid_pl.callbacks import callback_factory
from fedreid_pl.config import Config
from fedreid_pl.data.cache_folder import chosen_folder
from fedreid_pl.data.datamodule import ReIDDataModule
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.data.images import ImagePool
from fedreid_pl.data.scenarios import load_federated_data
from fedreid_pl.federation.client.store import ClientStore
from fedreid_pl.federation.client.trainer import build_trainer, launch, quiet
from fedreid_pl.federation.client.worker import ClientWorker
from fedreid_pl.federation.precision import resolve_precision
from fedreid_pl.inspection.look import LookBehind
from fedreid_pl.models.compiled import CompiledTrunk
from fedreid_pl.reporting.status import Status
from fedreid_pl.reporting.terminal import say
from fedreid_pl.start import initial_backbone


@dataclass
class Parts:
    """What training and evaluation both need."""

    data: FederatedData
    pool: ImagePool
    worker: ClientWorker


def build_worker(config: Config, folder: Path, session: str | None = None) -> ClientWorker:
    """A worker for the clients of a run from its configuration and folder alone, as another process has them.

    Args:
        config: of the run.
        folder: the run's; the clients keep their state in `folder/clients`.
        session: the only one whose jobs are done; `None`: any.

    Raises:
        FedReIDError: for data, weights or devices that cannot be had.
    """
    worker = build_client_parts(config, folder, callback_factory(config.callbacks)).worker
    worker.session = session
    return worker


def build_client_parts(config: Config, folder: Path, make_callbacks: Any) -> Parts:
    """Returns the data and the worker of a run's clients, made from its configuration and folder alone.

    Raises:
        FedReIDError: for data, weights or devices that cannot be had.
    """
    quiet()
    config = resolve_precision(config)
    data, backbone = load_federated_data(config.data), initial_backbone(config)
    return build_parts(config, data, backbone, folder, launch(config), make_callbacks)


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
    tell = say if trainer.is_global_zero else None
    store = ClientStore(folder / "clients", writable and trainer.is_global_zero, tell)
    datamodules = {
        name: ReIDDataModule(client, data.tests_of(name), pool, config.data, config.batch_size)
        for name, client in data.clients.items()
    }
    make_trainer = lambda callbacks: build_trainer(config, list(callbacks))  # noqa: E731
    worker = ClientWorker(
        *(config, datamodules, backbone, store, make_callbacks, make_trainer),
        compiled=_compiled(config, backbone, trainer),
        look_at=LookBehind(config) if trainer.is_global_zero else None,
    )
    return Parts(data, pool, worker)


def _compiled(config: Config, backbone: Any, trainer: pl.Trainer) -> CompiledTrunk | None:
    if config.trainer.compile == "none":
        return None
    batch = len(range(trainer.global_rank, config.batch_size, trainer.world_size))
    return CompiledTrunk(backbone, config.trainer.compile, batch)
