"""Runs an experiment from its configuration: checks it, launches the processes, and runs the rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_only

from fedreid_pl.callbacks import callbacks_of
from fedreid_pl.clients import build_parts
from fedreid_pl.config import Config, lineage, to_yaml
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.data.images import ImagePool
from fedreid_pl.data.scenarios import load_federated_data
from fedreid_pl.data.synthetic import with_found
from fedreid_pl.engines import check_engine, on_driver, started_engine, trains_here
from fedreid_pl.engines.peers import peers_of
from fedreid_pl.errors import FedReIDError, counted
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.client.trainer import check_devices, launch, quiet
from fedreid_pl.federation.precision import precision_warning, resolve_precision
from fedreid_pl.federation.server.checkpoint import check_models, read_checkpoint
from fedreid_pl.federation.server.context import RoundContext
from fedreid_pl.federation.server.loop import FederationLoop
from fedreid_pl.federation.server.observer import Observer
from fedreid_pl.federation.server.selection import check_selection
from fedreid_pl.federation.storage import write_text
from fedreid_pl.inspection.inspector import Inspector
from fedreid_pl.inspection.observer import InspectionFiles, check_report
from fedreid_pl.models.weights import Backbone
from fedreid_pl.parts import build_inspector, build_loop
from fedreid_pl.reporting import terminal
from fedreid_pl.reporting.html.report import ReportFile
from fedreid_pl.reporting.introduction import introduce
from fedreid_pl.reporting.loggers import make_observer
from fedreid_pl.reporting.progress import ProgressLine
from fedreid_pl.reporting.run_folder import RunFiles, RunLock, write_splits
from fedreid_pl.reporting.status import Status
from fedreid_pl.reporting.summary_file import read_summary
from fedreid_pl.reporting.wandb_names import check_wandb_names
from fedreid_pl.resume import find_checkpoint, prepare_folder, recorded_precision
from fedreid_pl.run_weights import check_unseen
from fedreid_pl.start import DRAWN, initial_backbone, start_record

Say = Callable[[str], None]


def train(config: Config, folder: Path) -> FederationLoop:
    """Runs an experiment to its end in `folder`, and resumes the run in this folder if `resume` allows.

    All checks run before the folder changes and before other processes start.

    Raises:
        FedReIDError: for every error that a user can correct.
    """
    quiet()
    check_engine(config)
    with started_engine(config) as started:
        return _train(config, folder, started)


def _train(config: Config, folder: Path, started: Any) -> FederationLoop:
    first = rank_zero_only.rank == 0  # type: ignore[attr-defined]
    say: Say = terminal.say if first else (lambda text: None)
    status = Status() if first else None
    config, make_callbacks, data, backbone = check_experiment(config, folder, status, say)
    lock = prepare_folder(config, folder, data.digests) if first else None
    observers = _observers(config, folder, data) if first else []
    if first:
        _compare_start(config, folder, say)
        write_text(folder / "config.yaml", to_yaml(config))
        write_splits(folder, data.digests, data.datasets, data.overlaps, data.unread_folders)
        introduce(config, data, folder)
        if slow := precision_warning(config):
            say(f"warning: {slow}")

    trainer = launch(on_driver(config))
    try:
        with peers_of(trainer):
            share = int(trains_here(config))
            parts = build_parts(config, data, backbone, folder, trainer, make_callbacks, status=status, share=share)
            inspector = build_inspector(config, parts, config.rounds, trainer) if first else None
            if inspector is not None:
                # after the metrics files, before the loggers
                observers[1:1] = [InspectionFiles(inspector, folder), ReportFile(folder)]
            prepare_images(config, parts.pool, say)
            loop = build_loop(
                config, parts, trainer, make_callbacks, folder, observers, inspector=inspector, started=started
            )
            with closing(loop.engine):
                resume_loop(loop, trainer, say)
                loop.run()
    finally:
        del lock
    return loop


class Checked(NamedTuple):
    """A checked experiment: its configuration, callbacks, data and backbone."""

    config: Config
    make_callbacks: Callable[[], dict[str, FederationCallback]]
    data: FederatedData
    backbone: Backbone


def check_experiment(config: Config, folder: Path, status: Status | None = None, say: Say | None = None) -> Checked:
    """Loads the data and the weights, and runs all checks that need no file to be written.

    Args:
        config: configuration of the run.
        folder: folder of the run.
        status: shows the progress.
        say: called with a line about the weights that were loaded from a file.

    Raises:
        FedReIDError: for every error that a user can correct, except errors in the run folder.
    """
    config = resolve_precision(config, recorded_precision(config, folder))
    check_engine(config)
    check_devices(on_driver(config))
    check_report(config)
    check_wandb_names(config)
    make_callbacks = callbacks_of(config)
    data = load_federated_data(config.data, status)
    config = with_found(config, data)
    check_unseen(config.model.weights, data)
    lines: list[str] = []
    backbone = initial_backbone(config, status, lines.append)
    if status is not None:
        status.done()
    for line in lines if say is not None else ():
        say(line)  # type: ignore[misc]
    check_selection(config, len(data.clients))
    for callback in make_callbacks().values():
        callback.check(config, data)
    return Checked(config, make_callbacks, data, backbone)


def _compare_start(config: Config, folder: Path, say: Say) -> None:
    """Warns if the run in `folder` started from initial weights that differ from the current ones."""
    before, now = (read_summary(folder) or {}).get("start"), start_record(config)
    if not before or not now or before.get("sha256") == now["sha256"]:
        return
    if config.model.weights != DRAWN:
        say(
            f"warning: the run in {folder} started from initial weights ({before.get('name')}, SHA-256 "
            f"{str(before.get('sha256'))[:12]}...) that differ from model.weights={config.model.weights} now "
            f"({now['name']}, {now['sha256'][:12]}...); the run continues from its checkpoint"
        )
    else:
        say(
            f"warning: the run in {folder} started from pretrained weights {str(before.get('sha256'))[:12]}, but this "
            f"machine generated {now['sha256'][:12]}; the run continues, but is not bit-reproducible on one machine"
        )


def prepare_images(config: Config, pool: ImagePool, say: Say) -> None:
    """Decodes the images that fit into memory, and prints how many images do not."""
    if kept := pool.load():
        say(f"{counted(kept, 'image')} decoded into memory")
    count, size = pool.undecoded()
    if count and config.data.cache == "auto":
        say(
            f"not in memory and decoded at every use: {counted(count, 'image')}; data.cache=disk decodes every image "
            f"once and needs {size / 1e9:.1f} GB on disk"
        )


def resume_loop(loop: FederationLoop, trainer: pl.Trainer, say: Say) -> None:
    """Loads the newest readable checkpoint into the loop, if there is one."""
    state, problems = loop.checkpoints.latest()
    for problem in problems:
        say(f"warning: {problem}; resuming from an earlier round")
    trainer.strategy.barrier("checkpoint is read")
    if state is not None:
        loop.load_state_dict(state)
        if other := other_threads(state):
            say(f"warning: {other}")
        say(f"resumed after round {loop.context.round} of {loop.context.rounds}")


def other_threads(state: Mapping[str, Any]) -> str | None:
    """Returns a warning if a checkpoint was computed with another number of threads, else `None`."""
    before, now = state.get("threads"), torch.get_num_threads()
    if before in (None, now):
        return None
    return (
        f"the run was computed with {counted(before, 'thread')} per client, this process uses {now}; the run goes on, "
        f"but is not bit-reproducible. To reproduce it, set OMP_NUM_THREADS={before}, or "
        f"engine.cpus_per_client={before} with engine=ray"
    )


def evaluate(
    config: Config, data: FederatedData, folder: Path, checkpoint: dict[str, Any], inspected: bool = False
) -> tuple[RoundContext, Inspector | None]:
    """Evaluates the models of a checkpoint on the data of the run's clients; writes no files.

    For a `local` run, every client evaluates its own model.

    Args:
        config: configuration of the run.
        data: data of the run's clients.
        folder: folder of the run.
        checkpoint: content of the checkpoint.
        inspected: whether to collect the data behind the scores, too.

    Returns:
        The context, whose history contains the scores under the checkpoint's round, and on the first process the
        inspector with the data behind the scores.

    Raises:
        FedReIDError: if the data cannot be read or do not fit the run.
    """
    quiet()
    config = with_found(resolve_precision(config), data)
    check_engine(config)
    check_devices(on_driver(config))
    make_callbacks = callbacks_of(config)
    backbone = initial_backbone(config)
    trainer = launch(on_driver(config))
    share = int(trains_here(config))
    parts = build_parts(config, data, backbone, folder, trainer, make_callbacks, writable=False, share=share)
    round, looks = checkpoint["round"], inspected and trainer.is_global_zero
    inspector = build_inspector(config, parts, round, trainer) if looks else None
    loop = build_loop(config, parts, trainer, make_callbacks, folder, [], writable=False, inspector=inspector)
    with closing(loop.engine):
        context = loop.context
        if trainer.is_global_zero:
            context.ledger.listeners.append(lambda text: terminal.say(f"warning: {text}"))
        check_models(checkpoint["models"], context.initial_backbone)
        context.round, context.models, context.assignment = round, checkpoint["models"], checkpoint["assignment"]
        context.turns = checkpoint.get("turns", dict.fromkeys(context.clients, round))
        if context.models:
            loop.evaluate_models()
        else:
            loop.evaluate_own()
    return context, inspector


def inspect_run(config: Config, before: Config, folder: Path) -> None:
    """Evaluates the last checkpoint of a run again and writes inspection.json with the settings of `config.report`.

    The function also saves the new section `report` in the run's config.yaml; the other keys come from `before`.

    Raises:
        FedReIDError: if the data cannot be read or differ from the run's data, or the folder cannot be written.
    """
    check_report(config)
    state = read_checkpoint(find_checkpoint(folder), lineage(before))
    data = load_federated_data(config.data)
    config = with_found(config, data)
    if list(data.clients) != list((read_summary(folder) or {}).get("clients", data.clients)):
        raise FedReIDError(f"data={config.data.name}: the clients differ from those of the run in {folder}")
    first = rank_zero_only.rank == 0  # type: ignore[attr-defined]
    lock = RunLock(folder) if first else None
    _, inspector = evaluate(config, data, folder, state, inspected=True)
    if lock is None or inspector is None:
        return
    if inspector.problem:
        raise FedReIDError(f"{folder}: {inspector.problem}")
    inspector.write(folder)
    write_text(folder / "config.yaml", to_yaml(replace(before, report=config.report)))


def _observers(config: Config, folder: Path, data: FederatedData) -> list[Observer]:
    observers: list[Observer] = [RunFiles(folder, data, start_record(config)), ProgressLine()]
    logger = make_observer(config, folder)
    return [*observers, logger] if logger else observers
