"""Chooses the logger of a run: wandb or TensorBoard, through Lightning's loggers."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pytorch_lightning.loggers import Logger, TensorBoardLogger

from fedreid_pl.config import Config
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.server.observer import Observer
from fedreid_pl.reporting.logger_observer import LoggerObserver
from fedreid_pl.reporting.wandb_run import WandbObserver


def make_observer(config: Config, folder: Path) -> Observer | None:
    """Returns the observer for `config.logger`; `None` for `csv` and `none`, because every run writes metrics.csv.

    Raises:
        FedReIDError: if the logger is TensorBoard and TensorBoard is not installed.
    """
    if config.logger == "wandb" and os.environ.get("WANDB_MODE") != "disabled":
        return WandbObserver(config, folder)
    if config.logger == "tensorboard":
        try:
            TensorBoardLogger(folder, name="")
        except ModuleNotFoundError as error:
            raise FedReIDError(
                "logger=tensorboard: TensorBoard is not installed; install it with `pip install tensorboard`, or set "
                "logger=csv"
            ) from error
        return LoggerObserver("tensorboard", lambda: _start_tensorboard(folder))
    return None


def _start_tensorboard(folder: Path) -> Logger:
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)  # all rounds are sent again
    return TensorBoardLogger(folder, name="tensorboard", version="")
