"""Logs a run to wandb: offline without a login, one wandb run per folder, `round` as the axis of every chart."""

from __future__ import annotations

import netrc
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import wandb
from pytorch_lightning.loggers import WandbLogger

from fedreid_pl.config import Config
from fedreid_pl.data.naming import shared_config
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.server.context import RoundContext
from fedreid_pl.federation.server.history import SCORED
from fedreid_pl.reporting.logger_observer import LoggerObserver, reason_of, tell
from fedreid_pl.reporting.run_folder import versions
from fedreid_pl.reporting.run_identity import RunIdentity, run_identity
from fedreid_pl.reporting.wandb_media import last_media, log_artifact, run_summary
from fedreid_pl.reporting.wandb_names import project_name
from fedreid_pl.reporting.wandb_place import becomes_whole, wandb_surroundings

SECTIONS = (*SCORED, "weights", "train", "cost", "system")


class RoundLogger(WandbLogger):
    """Lightning's wandb logger with the round as wandb's step.

    wandb accepts a step only once. Every round is committed when it is sent, so that a kill loses no saved round. Only
    the last round stays open until the media at the end of the run are added.

    Args:
        run: wandb run.
        last: number of the last round.

    Attributes:
        first: the first round that wandb does not have; above 0 if a server knows the run from an earlier start.
    """

    def __init__(self, run: Any, last: int) -> None:
        super().__init__(experiment=run)
        self.first, self.last = run.step, last

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Sends a round, unless wandb already has it."""
        assert step is not None
        if step >= self.first:
            self.experiment.log({"round": step, **metrics}, step=step, commit=step < self.last)


class WandbObserver(LoggerObserver):
    """Logs a run to wandb: numbers by round and, at the end, tables, pictures and the checkpoint.

    Args:
        config: configuration of the run.
        folder: folder of the run; wandb's files are in `wandb/` there.
    """

    def __init__(self, config: Config, folder: Path) -> None:
        super().__init__("wandb", lambda: self._start(config, folder))
        self.config, self.folder = config, folder
        self._run: Any = None
        self._notes: list[str] = []

    def on_start(self, federation: RoundContext) -> None:
        """Starts the wandb run and sends the finished rounds; then deletes offline runs of earlier starts."""
        before = sorted(self.folder.glob("wandb/offline-run-*"))
        with wandb_surroundings(self.folder):
            super().on_start(federation)
        for note in self._notes:
            tell(federation, note)
        if self.logger is not None:
            self._run = self.logger.experiment
            self.url = self._run.url if self._run.settings.mode == "online" else None
            own = Path(self._run.settings.sync_dir).resolve()
            for old in before:
                if old.resolve() != own:
                    shutil.rmtree(old, ignore_errors=True)

    def on_end(self, federation: RoundContext) -> None:
        """Sends tables, pictures and the checkpoint, and waits up to `WANDB_FINISH_TIMEOUT` seconds for the upload."""
        run = self._run
        if run is None:
            return
        if self.logger is not None and federation.round >= self.logger.first:
            self._send_whole(federation, run)
        try:
            run.finish()
        except Exception as error:
            tell(
                federation,
                f"wandb: the upload did not finish ({reason_of(error)}); run `wandb sync` on the run's wandb folder to "
                "upload the rest",
            )
            with suppress(Exception):  # otherwise wandb would print errors at the end of the process
                wandb.teardown(exit_code=1)
        file = Path(run.settings.sync_file)
        if run.settings.mode == "offline" and not becomes_whole(file):
            tell(
                federation,
                f"wandb: {file} is incomplete, the disk may be full. metrics.csv is complete; free disk space and run "
                "the same command again to write the file",
            )

    def _send_whole(self, federation: RoundContext, run: Any) -> None:
        last = {"round": federation.round}
        try:
            run.summary.update(run_summary(federation))
            if self.config.wandb.artifact:
                log_artifact(run, federation, self.folder)
            media = last_media(federation, self.folder)
            run.log({**last, **media}, step=federation.round, commit=True)
            if self.config.wandb.images and not any(name.startswith("ranked/") for name in media):
                tell(federation, "wandb.images=true: no pictures were sent, because this run has no ranked lists")
        except Exception as error:  # the numbers are logged even without the pictures
            tell(federation, f"wandb: some tables or pictures could not be logged ({reason_of(error)})")
            self._guard(federation, lambda: run.log(last, step=federation.round, commit=True))

    def _start(self, config: Config, folder: Path) -> WandbLogger:
        online = self._wants_online()
        identity = run_identity(folder)
        if identity.copied:
            self._notes.append(
                f"this run folder is a copy of another one, so it logs to a new wandb run ({identity.id}); the "
                "original wandb run does not change"
            )
        if online:
            before = set(folder.glob("wandb/run-*"))
            try:
                return RoundLogger(_init(config, folder, identity, offline=False), config.rounds)
            except Exception as error:  # a wrong key or no network: log to the disk
                self._notes.append(
                    f"wandb cannot be reached ({reason_of(error)}); the run is logged offline to {folder / 'wandb'}"
                )
                with suppress(Exception):
                    wandb.teardown()  # the failed start still uses the run's id
                for leftover in set(folder.glob("wandb/run-*")) - before:
                    shutil.rmtree(leftover, ignore_errors=True)
        return RoundLogger(_init(config, folder, identity, offline=True), config.rounds)

    def _wants_online(self) -> bool:
        mode, known = os.environ.get("WANDB_MODE"), logged_in()
        if mode == "online" and not known:  # wandb would ask for a key, and wait
            self._notes.append(
                "WANDB_MODE=online: there is no wandb login on this machine, so the run is logged offline to "
                f"{self.folder / 'wandb'}; run `wandb login`, or set WANDB_API_KEY, before the next start"
            )
        return known and mode in (None, "", "online")


def logged_in() -> bool:
    """Returns whether the environment or `.netrc` has a key for wandb's server. Asks and sends nothing."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(wandb.setup().settings.base_url).hostname
    named = os.environ.get("NETRC")
    for path in [named] if named else ["~/.netrc", "~/_netrc"]:
        with suppress(OSError, netrc.NetrcParseError):
            if host in netrc.netrc(os.path.expanduser(path)).hosts:
                return True
    return False


def default_entity() -> str:
    """Returns the default owner of the wandb account that is logged in.

    Raises:
        FedReIDError: if the server cannot be reached or names no owner.
    """
    try:
        entity = wandb.Api(timeout=20).default_entity
    except Exception as error:
        raise FedReIDError(
            f"wandb cannot be reached ({reason_of(error)}); try again, or set wandb.entity=NAME"
        ) from error
    if not entity:
        raise FedReIDError("wandb.entity: this wandb account has no default owner; set wandb.entity=NAME")
    return str(entity)


def _init(config: Config, folder: Path, identity: RunIdentity, offline: bool) -> Any:
    run = wandb.init(
        project=project_name(config),
        entity=config.wandb.entity,
        name=f"{config.name}-seed{config.seed}",
        group=config.name,
        tags=[config.data.name, *(["synthetic"] if config.data.synthetic else [])],
        id=identity.id,
        dir=str(folder),
        mode="offline" if offline else "online",
        resume=None if offline else "allow",
        config={**shared_config(config), "versions": versions()},
        settings=wandb.Settings(
            silent=True,
            console="off",
            x_disable_meta=True,  # sends no host, user or command line
            init_timeout=_seconds("WANDB_INIT_TIMEOUT", 30),  # after this time the run is logged offline
            finish_timeout=_seconds("WANDB_FINISH_TIMEOUT", 120),
            finish_timeout_raises=True,
        ),
    )
    run.define_metric("round", hidden=True)
    for section in (*SECTIONS, "members"):
        summary = "last,max" if section in SCORED else "last"
        run.define_metric(f"{section}/*", step_metric="round", summary=summary)
    return run


def _seconds(variable: str, default: float) -> float:
    try:
        return float(os.environ[variable])
    except (KeyError, ValueError):
        return default
