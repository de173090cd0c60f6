"""wandb and TensorBoard behind Lightning's loggers; no network and no account stops a run."""

from __future__ import annotations

import hashlib
import netrc
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import wandb
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger

from fedreid_pl.config import Config, without_places
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.history import TESTS, VALIDATIONS, Record
from fedreid_pl.federation.loop import FederationLoop
from fedreid_pl.federation.observer import Observer


class LoggerObserver(Observer):
    """Sends every round's numbers to a Lightning logger under `section/name/metric` with `round` as the step.

    A run that is resumed sends the rounds before it again, from the history in the checkpoint, so that the
    logger's copy is complete whatever it lost when the run was killed.

    Args:
        make: makes the Lightning logger when the run starts; if that fails, the run goes on without.
    """

    def __init__(self, make: Any) -> None:
        self.make = make
        self.logger: Any = None

    def on_start(self, federation: FederationLoop) -> None:
        """Makes the logger and sends what is known already."""
        try:
            self.logger = self.make()
        except Exception as error:  # a logger is never worth a run
            reason = " ".join(str(error).split())[:200]
            for observer in federation.observers:
                observer.on_warning(federation, f"logging goes on without {federation.config.logger} ({reason})")
            return
        for round in range(federation.round + 1):
            self._send(federation, round, federation.history.of_round(round))

    def on_round_end(self, federation: FederationLoop, records: Sequence[Record]) -> None:
        """Sends a round."""
        if federation.round == 1:  # what was evaluated before training
            self._send(federation, 0, federation.history.of_round(0))
        self._send(federation, federation.round, records)

    def on_end(self, federation: FederationLoop) -> None:
        """Closes the logger."""
        if self.logger is not None:
            self._guard(federation, lambda: self.logger.finalize("success"))
            if isinstance(self.logger, WandbLogger):
                self._guard(federation, lambda: self.logger.experiment.finish())

    def _send(self, federation: FederationLoop, round: int, records: Sequence[Record]) -> None:
        if self.logger is None or not records:
            return
        values: dict[str, float] = {f"{r.section}/{r.name}/{r.metric}": r.value for r in records}
        for section in (*TESTS, *VALIDATIONS):
            for metric in ("rank1", "mAP"):
                series = federation.history.mean_series(section, metric)
                if round in series:
                    values[f"{section}/mean/{metric}"] = series[round]
        self._guard(federation, lambda: self.logger.log_metrics({"round": round, **values}, step=round))

    def _guard(self, federation: FederationLoop, action: Any) -> None:
        try:
            action()
        except Exception as error:
            self.logger = None
            federation.warn(f"logging stopped ({' '.join(str(error).split())[:200]}); metrics.csv is complete")


def make_observer(config: Config, folder: Path) -> Observer | None:
    """The observer that `config.logger` asks for, `None` for `csv` and `none` (metrics.csv is always written).

    Raises:
        FedReIDError: if TensorBoard is asked for and not installed.
    """
    if config.logger == "wandb":
        return LoggerObserver(lambda: _wandb(config, folder))
    if config.logger == "tensorboard":
        try:
            TensorBoardLogger(folder, name="")
        except ModuleNotFoundError as error:
            raise FedReIDError(
                "logger=tensorboard: install it with `pip install tensorboard`, or set logger=csv"
            ) from error
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        return LoggerObserver(lambda: TensorBoardLogger(folder, name="tensorboard", version=""))
    return None


def _wandb(config: Config, folder: Path) -> WandbLogger:
    mode = os.environ.get("WANDB_MODE") or ("online" if _logged_in() else "offline")
    try:
        return _start_wandb(config, folder, offline=mode != "online")
    except Exception:
        if mode != "online":
            raise
        wandb.teardown()  # the attempt still holds the run's id
        return _start_wandb(config, folder, offline=True)  # a wrong key or no network: keep it on disk


def _start_wandb(config: Config, folder: Path, offline: bool) -> WandbLogger:
    run_id = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
    if offline:  # the history is sent whole, so an earlier part of this run would only stand there twice
        for old in (folder / "wandb").glob(f"offline-run-*-{run_id}"):
            shutil.rmtree(old, ignore_errors=True)
    run = wandb.init(
        project=f"fedreid_pl-{config.data.name}",
        name=f"{config.name}-seed{config.seed}",
        group=config.name,
        id=run_id,
        dir=str(folder),
        mode="offline" if offline else "online",
        resume=None if offline else "allow",
        config=without_places(config),
        settings=wandb.Settings(silent=True, console="off", init_timeout=_timeout(), x_disable_meta=True),  # no paths
    )
    run.define_metric("round")
    run.define_metric("*", step_metric="round")
    return WandbLogger(experiment=run)


def _timeout() -> float:
    return float(os.environ.get("WANDB_INIT_TIMEOUT", 30))  # seconds until the offline run takes the online one's place


def _logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return any("wandb" in host for host in netrc.netrc().hosts)
    except (OSError, netrc.NetrcParseError):
        return False
