"""An experiment from its configuration: checks first, then one launch, then the rounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_only

from fedreid_pl.callbacks import callback_factory
from fedreid_pl.config import Config, lineage, to_yaml
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.data.images import ImagePool
from fedreid_pl.data.scenarios import load_federated_data
from fedreid_pl.engines.peers import peers_of
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.client.trainer import check_devices, launch, quiet
from fedreid_pl.federation.client.worker import ClientWorker
from fedreid_pl.federation.messages import ClientJob
from fedreid_pl.federation.precision import resolve_precision
from fedreid_pl.federation.server.checkpoint import check_models, read_checkpoint
from fedreid_pl.federation.server.loop import FederationLoop
from fedreid_pl.federation.server.observer import Observer
from fedreid_pl.federation.server.selection import check_selection
from fedreid_pl.federation.storage import write_text
from fedreid_pl.inspection import InspectionFiles, Inspector, check_report
from fedreid_pl.models.weights import Backbone, build_backbone
from fedreid_pl.parts import Parts, build_loop, build_parts
from fedreid_pl.reporting import terminal
from fedreid_pl.reporting.html.report import ReportFile
from fedreid_pl.reporting.introduction import introduce
from fedreid_pl.reporting.loggers import make_observer
from fedreid_pl.reporting.progress import ProgressLine
from fedreid_pl.reporting.run_folder import RunFiles, RunLock, read_summary, write_splits
from fedreid_pl.reporting.status import Status
from fedreid_pl.resume import find_checkpoint, prepare_folder, recorded_precision

Say = Callable[[str], None]


def train(config: Config, folder: Path) -> FederationLoop:
    """Runs an experiment to its end in `folder`, going on where the folder ends if `resume` allows.

    Everything that can be refused is refused before the folder is touched and before other processes start.

    Raises:
        FedReIDError: for every mistake a user can mend.
    """
    quiet()
    first = rank_zero_only.rank == 0  # type: ignore[attr-defined]
    say: Say = terminal.say if first else (lambda text: None)
    status = Status() if first else None
    config, make_callbacks, data, backbone = check_experiment(config, folder, status)
    lock = prepare_folder(config, folder, data.digests) if first else None
    observers = _observers(config, folder, data) if first else []
    if first:
        write_text(folder / "config.yaml", to_yaml(config))
        write_splits(folder, data.digests, data.datasets)
        introduce(config, data, folder)

    trainer = launch(config)
    try:
        with peers_of(trainer):
            parts = build_parts(config, data, backbone, folder, trainer, make_callbacks, status=status)
            if first:
                inspector = parts.inspector(config, config.rounds, trainer)
                # after the numbers, before loggers
                observers[1:1] = [InspectionFiles(inspector, folder), ReportFile(folder)]
            _prepare_images(config, parts.pool, say)
            loop = build_loop(config, parts, trainer, make_callbacks, folder, observers)
            _resume(loop, trainer, say)
            loop.run()
    finally:
        del lock
    return loop


class Checked(NamedTuple):
    """An experiment that can be trained: its configuration, algorithms, data and network."""

    config: Config
    make_callbacks: Callable[[], dict[str, FederationCallback]]
    data: FederatedData
    backbone: Backbone


def check_experiment(config: Config, folder: Path, status: Status | None = None) -> Checked:
    """Reads the data and the weights, and refuses what can be refused before anything is written.

    Raises:
        FedReIDError: for every mistake a user can mend, but for those in the run's folder.
    """
    config = resolve_precision(config, recorded_precision(config, folder))
    check_devices(config)
    check_report(config)
    make_callbacks = callback_factory(config.callbacks)
    data = load_federated_data(config.data, status)
    if status is not None:
        status.done()
    backbone = build_backbone(config.model, config.seed)
    check_selection(config, len(data.clients))
    for callback in make_callbacks().values():
        callback.check(config, data)
    return Checked(config, make_callbacks, data, backbone)


def _prepare_images(config: Config, pool: ImagePool, say: Say) -> None:
    if kept := pool.load():
        say(f"{kept} images decoded into memory")
    count, size = pool.undecoded()
    if count and config.data.cache == "auto":
        say(
            f"{count:,} images do not fit into memory and are decoded whenever they are used; data.cache=disk decodes "
            f"them once, into {size / 1e9:.1f} GB"
        )


def _resume(loop: FederationLoop, trainer: pl.Trainer, say: Say) -> None:
    state, problems = loop.checkpoints.latest()
    for problem in problems:
        say(f"warning: {problem}; going on from the round before")
    trainer.strategy.barrier("checkpoint is read")
    if state is not None:
        loop.load_state_dict(state)
        say(f"resumed after round {loop.round} of {loop.rounds}")


def evaluate(
    config: Config,
    data: FederatedData,
    folder: Path,
    checkpoint: dict[str, Any],
    prepare: Callable[[Parts, pl.Trainer], object] | None = None,
) -> FederationLoop:
    """Evaluates the models of a checkpoint (of a `local` run: each client's own) on data of the run's clients.

    Nothing is written. The scores are in the returned loop's history, in the checkpoint's round. `prepare` is called
    with the parts before anything is evaluated.

    Raises:
        FedReIDError: for data that cannot be read or does not fit the run.
    """
    quiet()
    config = resolve_precision(config)
    check_devices(config)
    make_callbacks = callback_factory(config.callbacks)
    backbone = build_backbone(config.model, config.seed)
    trainer = launch(config)
    parts = build_parts(config, data, backbone, folder, trainer, make_callbacks, writable=False)
    if prepare is not None:
        prepare(parts, trainer)
    loop = build_loop(config, parts, trainer, make_callbacks, folder, [], writable=False)
    check_models(checkpoint["models"], loop.initial_backbone)
    loop.round = checkpoint["round"]
    loop.models = checkpoint["models"]
    loop.assignment = checkpoint["assignment"]
    if loop.models:
        loop.evaluate_models()
    else:
        _evaluate_own(loop, parts.worker)
    return loop


def inspect_run(config: Config, before: Config, folder: Path) -> None:
    """Looks into the models of a run's last checkpoint again and writes inspection.json as `config.report` says.

    That is kept in the run's config.yaml (`before` with the new section `report`).

    Raises:
        FedReIDError: for data that cannot be read or are others than the run's, or a folder that cannot be written.
    """
    check_report(config)
    state = read_checkpoint(find_checkpoint(folder), lineage(before))
    data = load_federated_data(config.data)
    if list(data.clients) != list((read_summary(folder) or {}).get("clients", data.clients)):
        raise FedReIDError(f"data={config.data.name}: its clients are not those of the run in {folder}")
    first = rank_zero_only.rank == 0  # type: ignore[attr-defined]
    lock = RunLock(folder) if first else None
    inspectors: list[Inspector] = []
    evaluate(
        config, data, folder, state, lambda parts, t: inspectors.append(parts.inspector(config, state["round"], t))
    )
    if lock is None:
        return
    (inspector,) = inspectors
    if inspector.problem:
        raise FedReIDError(f"{folder}: {inspector.problem}")
    inspector.write(folder)
    write_text(folder / "config.yaml", to_yaml(replace(before, report=config.report)))


def _evaluate_own(loop: FederationLoop, worker: ClientWorker) -> None:
    for client in loop.clients:
        loop.record_local(worker.evaluate(ClientJob(loop.round, client)))


def _observers(config: Config, folder: Path, data: FederatedData) -> list[Observer]:
    observers: list[Observer] = [RunFiles(folder, data), ProgressLine()]
    logger = make_observer(config, folder)
    return [*observers, logger] if logger else observers
