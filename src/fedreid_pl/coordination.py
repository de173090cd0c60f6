"""Runs an experiment over silos: the coordinator's side, which has no pictures of the clients."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch

from fedreid_pl import __version__
from fedreid_pl.callbacks import callback_factory
from fedreid_pl.clients import Parts, build_parts
from fedreid_pl.config import Config, lineage, load_config, to_yaml
from fedreid_pl.data.federated import ClientData, FederatedData
from fedreid_pl.data.samples import SampleTable
from fedreid_pl.data.scenarios import NO_CAMERAS, load_public
from fedreid_pl.data.synthetic import with_found
from fedreid_pl.engines.silos.coordinator import SilosEngine
from fedreid_pl.engines.silos.federation_folder import FederationFolder
from fedreid_pl.engines.silos.log_lines import Emit
from fedreid_pl.engines.silos.log_lines import quiet as silent
from fedreid_pl.engines.silos.log_observer import EventsObserver
from fedreid_pl.engines.silos.registration import Registration, check_validated
from fedreid_pl.engines.silos.shared import check_shareable, shared_text
from fedreid_pl.engines.silos.transport import Transport
from fedreid_pl.errors import FedReIDError, counted
from fedreid_pl.experiment import prepare_images, resume_loop
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.client.trainer import check_devices, launch, quiet
from fedreid_pl.federation.precision import resolve_precision
from fedreid_pl.federation.server.attempts import Attempts
from fedreid_pl.federation.server.checkpoint import Checkpoints
from fedreid_pl.federation.server.context import RoundContext
from fedreid_pl.federation.server.inbox import UpdateInbox
from fedreid_pl.federation.server.loop import FederationLoop
from fedreid_pl.federation.server.members import Members
from fedreid_pl.federation.server.network import ServerNetwork
from fedreid_pl.federation.server.observer import Observer
from fedreid_pl.federation.server.selection import check_selection
from fedreid_pl.federation.storage import write_text
from fedreid_pl.reporting import terminal
from fedreid_pl.reporting.html.report import ReportFile
from fedreid_pl.reporting.introduction import introduction_line
from fedreid_pl.reporting.loggers import make_observer
from fedreid_pl.reporting.progress import ProgressLine
from fedreid_pl.reporting.run_folder import RunFiles, write_splits
from fedreid_pl.reporting.status import Status
from fedreid_pl.reporting.wandb_names import check_wandb_names
from fedreid_pl.resume import check_folder, prepare_folder, recorded_precision
from fedreid_pl.start import initial_backbone, start_record

Open = Callable[[FederationFolder], Transport]
MakeCallbacks = Callable[[], dict[str, FederationCallback]]


class SiloClient(ClientData):
    """Client data without pictures, because the pictures are at the silo."""

    def __post_init__(self) -> None:
        """Skips the checks of `ClientData`, because the coordinator has no pictures."""


def coordinate(config: Config, folder: Path, open_transport: Open, events: Emit | None = None) -> FederationLoop:
    """Runs an experiment over the silos of `engine.federation`, and resumes the run in `folder` if `resume` allows.

    Args:
        config: configuration of the experiment.
        folder: folder of the run.
        open_transport: opens the connection to the silos.
        events: writes events to a structured log, in place of a progress line; `None`: no structured log.

    Raises:
        FedReIDError: for every error that a user can correct, and if a silo refuses the experiment.
    """
    quiet()
    federation = open_federation(config)
    config, known = _recorded(resolve_precision(config, recorded_precision(config, folder)), folder)
    make_callbacks, public = check_coordination(config, federation)
    backbone = initial_backbone(config, status := Status())
    status.done()
    ours, lock = federation.lock(), prepare_folder(config, folder)
    trainer = launch(config)
    parts = build_parts(config, public, backbone, folder, trainer, make_callbacks)
    if public.public is not None:
        prepare_images(config, parts.pool, terminal.say)
    attempts = Attempts(folder / "checkpoints")
    attempts.keep()  # if this start is killed while silos join, the next start uses the same session
    engine = SilosEngine(
        *(federation, open_transport(federation), attempts.session, shared_text(config), folder / "payloads"),
        announce=lambda job: loop.announce(job),
        deadline=config.engine.deadline,
        say=terminal.say,
    )
    engine.events = events or silent
    with closing(engine):
        launch_number, left = federation.next_launch(), _left(folder)
        registered = engine.join(parts.worker.initial, launch_number, config.min_clients, left)
        if known is None:  # a resumed run may have lost the silo with validation persons
            check_validated(registered.values(), config.data.val_ids)
        data = _registered(public, registered.values(), known)
        config, engine.synthetic = with_found(config, data), data.synthetic
        context = _context(config, registered.values(), parts, trainer)
        write_text(folder / "config.yaml", to_yaml(config))
        write_splits(folder, data.digests, data.datasets)
        _introduce(config, registered.values(), folder)
        checkpoints = Checkpoints(folder / "checkpoints", lineage=lineage(config))
        inbox = UpdateInbox(folder / "checkpoints")
        observers = _observers(config, folder, data, events)
        loop = FederationLoop(context, engine, make_callbacks(), checkpoints, observers, inbox, attempts)
        resume_loop(loop, trainer, terminal.say)
        loop.run()
    del lock, ours
    return loop


def dry_run_of_silos(config: Config, folder: Path) -> str:
    """Checks a run over silos without calling any silo, and returns the plan of the coordinator as text.

    Raises:
        FedReIDError: for every error that `train` would report.
    """
    federation = open_federation(config)
    config, _ = _recorded(resolve_precision(config, recorded_precision(config, folder)), folder)
    check_coordination(config, federation)
    done = check_folder(config, folder)
    begins = f"would resume after round {done}" if done else "would start"
    return (
        f"{config.name} at {federation.address} with the silos {', '.join(federation.members)}\n\n"
        f"Dry run: no silo was called, and nothing was trained or written. The run {begins} in {folder}"
    )


def open_federation(config: Config) -> FederationFolder:
    """Returns the federation of `federation=FOLDER`.

    Raises:
        FedReIDError: if the key is missing, the folder is no federation, or the federation has no silo.
    """
    if not config.engine.federation:
        raise FedReIDError("engine=silos: name the federation's folder, federation=FOLDER (fedreid-pl federation init)")
    federation = FederationFolder(Path(config.engine.federation))
    if not federation.members:
        raise FedReIDError(f"federation={federation.path}: has no silo; add one with fedreid-pl federation add")
    return federation


def check_coordination(config: Config, federation: FederationFolder) -> tuple[MakeCallbacks, FederatedData]:
    """Checks a run over silos before any file is written, and returns its callbacks and public set.

    Raises:
        FedReIDError: for every error that a user can correct.
    """
    check_shareable(config)
    check_devices(config)
    check_wandb_names(config)
    make_callbacks = callback_factory(config.callbacks, "silos", ())
    public, members = load_public(config.data), federation.members
    check_selection(config, len(members))
    data = replace(public, clients={name: _client(name, 0) for name in members})
    for callback in make_callbacks().values():
        try:
            callback.check(config, data)
        except FedReIDError as error:
            if public.public is None and config.data.public:
                raise FedReIDError(
                    f"{error}; data.public={config.data.public} must be a folder in data.root"
                ) from error
            raise
    return make_callbacks, public


def _recorded(config: Config, folder: Path) -> tuple[Config, bool | None]:
    """Returns the configuration with the saved `data.synthetic` of a resumed run, and this value (`None`: new run)."""
    file = folder / "config.yaml"
    known = load_config(file).data.synthetic if config.resume != "never" and file.exists() else None
    return replace(config, data=replace(config.data, synthetic=bool(known))), known


def _client(name: str, images: int) -> ClientData:
    columns = (np.zeros(images, np.int64), np.zeros(images, np.int64), np.zeros(images, np.uint8))
    return SiloClient(name, SampleTable(name, Path(), ("",) * images, *columns), (name,))


def _left(folder: Path) -> list[str]:
    """Returns the silos that had left the run at its newest checkpoint. The coordinator does not wait for them."""
    state, _ = Checkpoints(folder / "checkpoints").latest()
    members = Members()
    members.load_state_dict((state or {}).get("members", {}))
    return [client.removesuffix(NO_CAMERAS) for client in members if client not in members.present()]


def _registered(public: FederatedData, registered: Iterable[Registration], known: bool | None) -> FederatedData:
    """Returns the coordinator's data description with `synthetic` set from all silos, or from `known`.

    `known` is the value that the run saved before; `None` for a new run.

    Raises:
        FedReIDError: for photographs in a run that is marked as synthetic.
    """
    if known:
        for found in registered:
            found.check_synthetic()
    synthetic = all(found.synthetic for found in registered) and (public.public is None or public.synthetic)
    return replace(public, synthetic=synthetic if known is None else known)


def _context(config: Config, registered: Iterable[Registration], parts: Parts, trainer: pl.Trainer) -> RoundContext:
    registered, worker = list(registered), parts.worker
    public = parts.pool.source(parts.data.public) if parts.data.public is not None else None
    return RoundContext(
        config,
        {found.client: found.images for found in registered},
        {found.client: found.tests for found in registered},
        worker.initial,
        frozenset(name for name, _ in worker.backbone.named_buffers()),
        ServerNetwork(lambda: copy.deepcopy(worker.backbone), public, trainer.strategy.root_device),
    )


def _observers(config: Config, folder: Path, data: FederatedData, events: Emit | None) -> list[Observer]:
    logger = make_observer(config, folder)
    files = RunFiles(folder, data, start_record(config))
    return [
        files,
        ReportFile(folder),
        ProgressLine() if events is None else EventsObserver(events),
        *([logger] if logger else []),
    ]


def _introduce(config: Config, registered: Iterable[Registration], folder: Path) -> None:
    registered = list(registered)
    images = sum(found.images for found in registered)
    terminal.say(introduction_line(config, counted(len(registered), "silo"), images, folder))
    for found in registered:
        if (found.version, found.torch) != (__version__, str(torch.__version__)):
            terminal.say(
                f"warning: silo {found.silo} has fedreid_pl {found.version} and torch {found.torch}, the coordinator "
                f"{__version__} and {torch.__version__}; results may differ in the last bits between versions"
            )
