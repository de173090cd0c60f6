"""An experiment from its configuration: checks first, then one launch, then the rounds."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_only

from fedreid_pl.callbacks import callback_factory
from fedreid_pl.config import Config, departures, lineage, to_yaml
from fedreid_pl.data.cache_folder import chosen_folder
from fedreid_pl.data.datamodule import ReIDDataModule
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.data.images import ImagePool
from fedreid_pl.data.scenarios import load_federated_data
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.checkpoint import Checkpoints, check_models, read_checkpoint
from fedreid_pl.federation.engine import SequentialEngine
from fedreid_pl.federation.loop import FederationLoop
from fedreid_pl.federation.messages import ClientJob
from fedreid_pl.federation.observer import Observer
from fedreid_pl.federation.peers import peers_of
from fedreid_pl.federation.selection import check_selection
from fedreid_pl.federation.server import ServerNetwork
from fedreid_pl.federation.storage import write_text
from fedreid_pl.federation.store import ClientStore
from fedreid_pl.federation.trainer import build_trainer, check_devices, launch, quiet
from fedreid_pl.federation.worker import ClientWorker
from fedreid_pl.inspection import InspectionFiles, Inspector, check_report
from fedreid_pl.models.weights import build_backbone
from fedreid_pl.reporting.html.report import ReportFile
from fedreid_pl.reporting.loggers import make_observer
from fedreid_pl.reporting.progress import ProgressLine
from fedreid_pl.reporting.run_folder import RunFiles, RunLock, read_summary, write_splits
from fedreid_pl.reporting.status import Status
from fedreid_pl.reporting.tables import text_table
from fedreid_pl.resume import find_checkpoint, prepare_folder

Say = Callable[[str], None]


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


def train(config: Config, folder: Path) -> FederationLoop:
    """Runs an experiment to its end in `folder`, going on where the folder ends if `resume` allows.

    Everything that can be refused is refused before the folder is touched and before other processes start.

    Raises:
        FedReIDError: for every mistake a user can mend.
    """
    quiet()
    first = rank_zero_only.rank == 0  # type: ignore[attr-defined]
    say: Say = _say if first else (lambda text: None)
    check_devices(config)
    check_report(config)
    make_callbacks = callback_factory(config.callbacks)
    status = Status() if first else None
    data = load_federated_data(config.data, status)
    if status is not None:
        status.done()
    backbone = build_backbone(config.model, config.seed)
    check_selection(config, len(data.clients))
    for callback in make_callbacks().values():
        callback.check(config, data)
    lock = prepare_folder(config, folder, data.digests) if first else None
    observers = _observers(config, folder, data) if first else []
    if first:
        write_text(folder / "config.yaml", to_yaml(config))
        write_splits(folder, data.digests, data.datasets)
        say(_introduction(config, data, folder))
        for name, bad in data.left_out.items():
            say(f"{name}: {len(bad):,} unreadable images are left out, such as {bad[0].path} ({bad[0].reason})")
        for remark in data.remarks:
            say(f"warning: {remark}")
        if data.unvalidated:
            say(f"no validation set, for want of persons seen by two cameras: {', '.join(data.unvalidated)}")
        if rows := departures(config):
            header = ["where the run follows the published code", "is", "paper", "meaning"]
            say(text_table(header, rows, left=4))

    trainer = launch(config)
    try:
        with peers_of(trainer):
            parts = build_parts(config, data, backbone, folder, trainer, make_callbacks, status=status)
            if first:
                inspector = parts.inspector(config, config.rounds, trainer)
                # after the numbers, before loggers
                observers[1:1] = [InspectionFiles(inspector, folder), ReportFile(folder)]
            _prepare_images(config, parts.pool, say)
            loop = _loop(config, parts, trainer, make_callbacks, folder, observers)
            _resume(loop, trainer, say)
            loop.run()
    finally:
        del lock
    return loop


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
    check_devices(config)
    make_callbacks = callback_factory(config.callbacks)
    backbone = build_backbone(config.model, config.seed)
    trainer = launch(config)
    parts = build_parts(config, data, backbone, folder, trainer, make_callbacks, writable=False)
    if prepare is not None:
        prepare(parts, trainer)
    loop = _loop(config, parts, trainer, make_callbacks, folder, [], writable=False)
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
    pool.prepare(data.datasets, chosen_folder(c.cache_dir) / "images", status, _say)  # whoever decodes says so
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
    worker = ClientWorker(config, datamodules, backbone, store, make_callbacks, make_trainer, trainer.global_rank)
    return Parts(data, pool, worker, store)


def _loop(
    config: Config,
    parts: Parts,
    trainer: pl.Trainer,
    make_callbacks: Any,
    folder: Path,
    observers: list[Observer],
    writable: bool = True,
) -> FederationLoop:
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
    )
    return loop


def _observers(config: Config, folder: Path, data: FederatedData) -> list[Observer]:
    observers: list[Observer] = [RunFiles(folder, data), ProgressLine()]
    logger = make_observer(config, folder)
    return [*observers, logger] if logger else observers


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _introduction(config: Config, data: FederatedData, folder: Path) -> str:
    images = sum(len(client.train) for client in data.clients.values())
    kind = ", synthetic data" if config.data.synthetic else ""
    return (
        f"{config.name}: {len(data.clients)} clients, {images} training images{kind}, {config.rounds} rounds, "
        f"seed {config.seed}, folder {folder}"
    )
