"""Builds the clients' side of a run from its configuration and data, without importing any part of the server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from fedreid_pl.callbacks import callbacks_of
from fedreid_pl.config import Config
from fedreid_pl.data.cache_folder import chosen_folder
from fedreid_pl.data.datamodule import ReIDDataModule
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.data.images import ImagePool
from fedreid_pl.data.scenarios import load_federated_data
from fedreid_pl.federation.client.store import ClientStore, KeptState
from fedreid_pl.federation.client.trainer import build_trainer, launch, quiet
from fedreid_pl.federation.client.worker import ClientWorker
from fedreid_pl.federation.messages import State
from fedreid_pl.federation.precision import resolve_precision
from fedreid_pl.inspection.look import LookBehind
from fedreid_pl.models.compiled import CompiledTrunk
from fedreid_pl.models.weights import copy_state
from fedreid_pl.reporting.status import Status
from fedreid_pl.reporting.terminal import say
from fedreid_pl.start import empty_backbone, initial_backbone


@dataclass
class Parts:
    """The data, the image pool and the worker of a run's clients."""

    data: FederatedData
    pool: ImagePool
    worker: ClientWorker


def build_worker(config: Config, folder: Path, session: str | None = None) -> ClientWorker:
    """Returns a worker for the clients of a run, built from configuration and folder only, for another process.

    Args:
        config: configuration of the run.
        folder: folder of the run; the clients save their state in `folder/clients`.
        session: the worker accepts only jobs of this session; `None`: all jobs.

    Raises:
        FedReIDError: if data, weights or devices are not available.
    """
    worker = build_client_parts(config, folder, callbacks_of(config)).worker
    worker.session = session
    return worker


def build_client_parts(
    config: Config,
    folder: Path,
    make_callbacks: Any,
    initial: State | None = None,
    store: KeptState | None = None,
    share: int = 1,
    complete: bool = True,
) -> Parts:
    """Returns the data and the worker of a run's clients, built from configuration and folder only.

    Args:
        config, folder, make_callbacks, store, share: see `build_parts`.
        initial: initial weights of the run; `None`: the weights of `model.weights`.
        complete: whether these clients are all clients of the run.

    Raises:
        FedReIDError: if data, weights or devices are not available.
    """
    quiet()
    config = resolve_precision(config)
    data = load_federated_data(config.data, complete=complete)
    if initial is None:
        backbone = initial_backbone(config)
    else:
        backbone = empty_backbone(config)
        copy_state(initial, backbone)
    return build_parts(config, data, backbone, folder, launch(config), make_callbacks, store=store, share=share)


def build_parts(
    config: Config,
    data: FederatedData,
    backbone: Any,
    folder: Path,
    trainer: pl.Trainer,
    make_callbacks: Any,
    writable: bool = True,
    status: Status | None = None,
    store: KeptState | None = None,
    share: int = 1,
) -> Parts:
    """Returns the clients' data and the worker that trains and evaluates the clients.

    Args:
        config: configuration of the run.
        data: data of all clients.
        backbone: backbone with the initial weights of the run.
        folder: folder of the run.
        trainer: the Trainer returned by `launch`.
        make_callbacks: see `callback_factory`.
        writable: whether the clients save their state.
        status: shows the progress of preparing pictures.
        store: stores the clients' state in place of files in `folder/clients`.
        share: number of such processes that share the machine's memory and processors. 0: this process trains no
            client; it reads pictures one by one, except those of the public set.
    """
    c = config.data
    pool = ImagePool(c.height, c.width, c.cache, config.trainer.devices * max(share, 1), c.workers)
    # `say`: the process that decodes prints the progress
    pool.prepare(data.datasets, chosen_folder(c.cache_dir) / "images", status, say)
    if status is not None:
        status.done()
    if share:
        for table in data.tables():
            pool.source(table)
    elif data.public is not None:
        pool.source(data.public)
    pool.cache = pool.cache if share else "none"
    tell = say if trainer.is_global_zero else None
    store = store or ClientStore(folder / "clients", writable and trainer.is_global_zero, tell)
    make_datamodule = lambda name: ReIDDataModule(  # noqa: E731
        *(data.clients[name], data.tests_of(name), pool, config.data, config.batch_size),
        steps=config.local_steps,
        unseen=data.unseen,
    )
    make_trainer = lambda callbacks: build_trainer(config, list(callbacks))  # noqa: E731
    worker = ClientWorker(
        *(config, WhenUsed(data.clients, make_datamodule), backbone, store, make_callbacks, make_trainer),
        compiled=_compiled(config, backbone, trainer) if share else None,
        look_at=LookBehind(config) if trainer.is_global_zero else None,
    )
    return Parts(data, pool, worker)


class WhenUsed(Mapping[str, ReIDDataModule]):
    """Maps client names to datamodules, and creates each datamodule at its first use, for runs with many clients.

    Args:
        clients: client names in order.
        make: creates the datamodule of a client.
    """

    def __init__(self, clients: Iterable[str], make: Callable[[str], ReIDDataModule]) -> None:
        self._made: dict[str, ReIDDataModule | None] = dict.fromkeys(clients)
        self._make = make

    def __getitem__(self, name: str) -> ReIDDataModule:
        made = self._made[name]
        if made is None:
            made = self._made[name] = self._make(name)
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)


def _compiled(config: Config, backbone: Any, trainer: pl.Trainer) -> CompiledTrunk | None:
    if config.trainer.compile == "none":
        return None
    batch = len(range(trainer.global_rank, config.batch_size, trainer.world_size))
    return CompiledTrunk(backbone, config.trainer.compile, batch)
