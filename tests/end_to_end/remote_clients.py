"""Clients in a process of their own: an engine that hands them messages as bytes and gets messages as bytes back."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from fedreid_pl import experiment
from fedreid_pl.callbacks import callback_factory
from fedreid_pl.config import Config, load_config
from fedreid_pl.data.scenarios import load_federated_data
from fedreid_pl.federation.client.trainer import launch, quiet
from fedreid_pl.federation.client.worker import ClientWorker
from fedreid_pl.federation.messages import ClientJob, ClientUpdate, from_bytes, to_bytes
from fedreid_pl.models.weights import build_backbone


class Interruption(BaseException):
    """Stops a run in the middle of a round."""


class ClientProcess:
    """A process that holds the clients' data, heads and callbacks; only bytes go in and out."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs,), daemon=True)
        self.process.start()

    def ask(self, *request: str | bytes) -> bytes:
        self.pipe.send(request)
        return self.pipe.recv_bytes()

    def close(self) -> None:
        self.pipe.close()
        self.process.join(10)


class RemoteEngine:
    """The loop's engine over a ClientProcess; stops the run at turn number `stop`, if one is given."""

    def __init__(self, clients: ClientProcess, config: Path, home: Path, stop: int | None = None) -> None:
        self.clients, self.turns, self.stop = clients, 0, stop
        self.clients.ask("begin", str(config), str(home))

    def fit(self, jobs: Iterable[ClientJob]) -> Iterator[ClientUpdate]:
        for job in jobs:
            self.turns += 1
            if self.turns == self.stop:
                raise Interruption
            yield self._do("fit", job)

    def evaluate(self, jobs: Iterable[ClientJob]) -> Iterator[ClientUpdate]:
        for job in jobs:
            yield self._do("evaluate", job)

    def _do(self, what: str, job: ClientJob) -> ClientUpdate:
        update = from_bytes(self.clients.ask(what, to_bytes(job)))
        assert isinstance(update, ClientUpdate)
        return update


def serve(pipe: Connection) -> None:
    """The other process: builds the clients of a configuration and does the turns that it is asked for."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    quiet()
    worker: Any = None
    while True:
        try:
            what, *rest = pipe.recv()
        except EOFError:
            return
        if what == "begin":
            worker = build_worker(load_config(Path(rest[0])), Path(rest[1]))
            pipe.send_bytes(b"")
        else:
            pipe.send_bytes(to_bytes(getattr(worker, what)(from_bytes(rest[0]))))


def build_worker(config: Config, home: Path) -> ClientWorker:
    """The clients of a configuration, which keep what is theirs under `home`."""
    data = load_federated_data(config.data)
    backbone = build_backbone(config.model, config.seed)
    make_callbacks = callback_factory(config.callbacks)
    return experiment.build_parts(config, data, backbone, home, launch(config), make_callbacks).worker
