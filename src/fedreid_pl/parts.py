"""Builds the server's side of a run: context, engine and federation loop."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from fedreid_pl.clients import Parts
from fedreid_pl.config import Config, lineage
from fedreid_pl.engines import EngineParts, build_engine
from fedreid_pl.federation.client.worker import Look
from fedreid_pl.federation.messages import ClientJob
from fedreid_pl.federation.server.attempts import Attempts
from fedreid_pl.federation.server.checkpoint import Checkpoints
from fedreid_pl.federation.server.context import RoundContext
from fedreid_pl.federation.server.inbox import UpdateInbox
from fedreid_pl.federation.server.loop import FederationLoop
from fedreid_pl.federation.server.network import ServerNetwork
from fedreid_pl.federation.server.observer import Observer
from fedreid_pl.inspection.inspector import Inspector


def build_inspector(config: Config, parts: Parts, round: int, trainer: pl.Trainer) -> Inspector:
    """Returns the inspector, which collects the data behind the scores of a round."""
    worker, device = parts.worker, trainer.strategy.root_device
    return Inspector(config, parts.data, parts.pool, worker.backbone, worker.initial, round, device)


def build_context(config: Config, parts: Parts, trainer: pl.Trainer) -> RoundContext:
    """Returns the server's context before the first round."""
    data, worker = parts.data, parts.worker
    public = parts.pool.source(data.public) if data.public is not None else None
    return RoundContext(
        config,
        {name: len(client.train) for name, client in data.clients.items()},
        {name: client.tests for name, client in data.clients.items()},
        worker.initial,
        frozenset(name for name, _ in worker.backbone.named_buffers()),
        ServerNetwork(lambda: copy.deepcopy(worker.backbone), public, trainer.strategy.root_device),
        tuple(data.unseen),
    )


def build_loop(
    config: Config,
    parts: Parts,
    trainer: pl.Trainer,
    make_callbacks: Any,
    folder: Path,
    observers: list[Observer],
    writable: bool = True,
    inspector: Inspector | None = None,
    started: Any = None,
) -> FederationLoop:
    """Returns the federation loop before its first round. The caller closes the engine of the loop.

    Args:
        config: configuration of the run.
        parts: data and worker of the clients.
        trainer: the Trainer returned by `launch`.
        make_callbacks: see `callback_factory`.
        folder: folder of the run.
        observers: observers of the rounds.
        writable: whether the loop saves checkpoints and updates.
        inspector: receives the data behind the scores of its round.
        started: the object that `engines.started_engine` returned.
    """
    writes = writable and trainer.is_global_zero
    context = build_context(config, parts, trainer)
    context.inspected = inspector.round if inspector is not None else None

    def announce(job: ClientJob) -> None:
        loop.announce(job)

    def deliver(look: Look) -> None:
        if inspector is not None:
            inspector.add(look)

    engine = build_engine(
        EngineParts(
            *(config, folder, parts.worker, announce, deliver, trainer.world_size),
            measure=context.costs.measure,
            data=parts.data,
            started=started,
        )
    )
    if elsewhere := getattr(engine, "features", None):
        context.server.elsewhere = elsewhere
    try:
        loop = FederationLoop(
            context,
            engine,
            make_callbacks(),
            Checkpoints(folder / "checkpoints", writes, lineage=lineage(config)),
            observers,
            UpdateInbox(folder / "checkpoints") if writable else None,
            Attempts(folder / "checkpoints", writes),
        )
    except BaseException:
        engine.close()
        raise
    return loop
