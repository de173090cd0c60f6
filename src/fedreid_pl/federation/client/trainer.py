"""Builds the Lightning Trainer of one client's turn, and launches the processes that all turns share."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from shutil import which
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.accelerators import CUDAAccelerator, MPSAccelerator, XLAAccelerator
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from fedreid_pl.config import Config
from fedreid_pl.config.launch import STARTED
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.client.trainer_parts import (
    NoProfiler,
    OneProcessor,
    plugins_once,
    use_epoch_loop,
    use_no_signals,
)
from fedreid_pl.federation.memory import keep_freed_memory
from fedreid_pl.federation.precision import resolve_precision
from fedreid_pl.models.synchronized_norm import NormSync


def build_trainer(config: Config, callbacks: Sequence[pl.Callback] = ()) -> pl.Trainer:
    """Returns a Trainer that trains and tests one turn, without logger, progress bar, checkpoints or banner.

    For the Trainer, a turn of `local_steps` is one epoch.

    Args:
        config: configuration of the run.
        callbacks: Lightning callbacks of the turn.

    Raises:
        FedReIDError: if the accelerator, the number of devices or the strategy is not available.
    """
    c = resolve_precision(config).trainer
    try:
        with plugins_once():
            trainer = pl.Trainer(
                accelerator=c.accelerator,
                devices=c.devices,
                num_nodes=c.num_nodes,
                strategy=_strategy(config),
                precision=c.precision,  # type: ignore[arg-type]
                plugins=[NormSync()] if c.sync_batchnorm and _several(config) else None,
                deterministic=c.deterministic or None,
                benchmark=c.benchmark,
                max_epochs=config.epochs_per_round,
                callbacks=list(callbacks),
                logger=False,
                profiler=NoProfiler(),
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                limit_val_batches=0,
                log_every_n_steps=10**9,
                use_distributed_sampler=False,
            )
    except (MisconfigurationException, ValueError, RuntimeError, ImportError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise FedReIDError(
            f"trainer.accelerator={c.accelerator} trainer.devices={c.devices} trainer.strategy={c.strategy}: {reason}"
        ) from error
    use_epoch_loop(trainer)
    use_no_signals(trainer)
    return trainer


def launch(config: Config) -> pl.Trainer:
    """Starts the strategy's other processes, if there are any, and joins them into one process group.

    Later Trainers of this process use the group and start no processes.

    Returns:
        A Trainer whose strategy provides rank and world size.
    """
    keep_freed_memory()
    trainer = build_trainer(config)
    if trainer.strategy.launcher is not None:
        os.environ[STARTED] = str(os.getpid())  # Lightning's own variables may be left over from another program
        trainer.strategy.launcher.launch(_nothing, trainer=trainer)
    trainer.strategy.setup_environment()
    return trainer


def check_devices(config: Config) -> None:
    """Checks devices, strategy, batch size and compiler before any file is written.

    Raises:
        FedReIDError: if the devices or a compiler are missing, the batch is too small for the number of devices, or the
            strategy does not keep a full copy of the weights on each device.
    """
    c = config.trainer
    available = torch.cuda.device_count()
    if c.accelerator in ("gpu", "cuda") and c.devices > available:
        raise FedReIDError(
            f"trainer.devices={c.devices}: this machine has {available} GPUs; choose at most that number"
        )
    if c.accelerator == "auto" and available and c.devices > available:
        raise FedReIDError(
            f"trainer.devices={c.devices}: this machine has {available} GPUs; choose at most that number, or train on "
            "the CPU with trainer.accelerator=cpu"
        )
    processors = os.cpu_count() or 1
    if c.devices > processors and (c.accelerator == "cpu" or (c.accelerator == "auto" and not available)):
        raise FedReIDError(
            f"trainer.devices={c.devices}: this machine has {processors} processors; choose at most that number"
        )
    if config.batch_size < 2 * c.devices * c.num_nodes:
        raise FedReIDError(
            f"batch_size={config.batch_size}: must be at least {2 * c.devices * c.num_nodes}, because BatchNorm needs "
            f"two images on each of the {c.devices * c.num_nodes} devices"
        )
    if c.compile != "none":
        _check_compiler(c.compile, gpu=bool(available) and c.accelerator in ("auto", "gpu", "cuda"))
    if any(word in c.strategy for word in ("spawn", "fork", "notebook")):
        raise FedReIDError(f"trainer.strategy={c.strategy}: would start new processes for every client; use ddp")
    trainer = build_trainer(config)
    if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
        raise FedReIDError(
            f"trainer.strategy={c.strategy}: does not keep a full copy of the weights on each device, which callbacks "
            "need; use ddp"
        )


def quiet() -> None:
    """Silences Lightning's banners and hints, which would otherwise appear for every client and round."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning", "lightning.pytorch", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"pytorch_lightning|lightning_fabric|torch\.utils\.data|torchmetrics")
    os.environ.setdefault("WANDB_SILENT", "true")


def _check_compiler(mode: str, gpu: bool) -> None:
    if gpu and find_spec("triton") is None:
        raise FedReIDError(
            f"trainer.compile={mode}: needs the package triton on a GPU; install triton or set trainer.compile=none"
        )
    known = (os.environ.get("CXX", ""), "g++", "clang++", "c++")
    if not gpu and not any(name and which(name) for name in known):
        raise FedReIDError(
            f"trainer.compile={mode}: needs a C++ compiler such as g++; install one or set trainer.compile=none"
        )


def _strategy(config: Config) -> Any:
    name = config.trainer.strategy
    if name in ("auto", "ddp") and _several(config):
        # Every process keeps the statistics of its own images; ReIDClient averages them at the end of an epoch.
        return DDPStrategy(broadcast_buffers=False)
    if name in ("auto", "ddp") and not _several(config) and _on_processor(config.trainer.accelerator):
        return OneProcessor()
    return "auto" if name == "ddp" else name


@cache
def _on_processor(accelerator: str) -> bool:
    others = (CUDAAccelerator, MPSAccelerator, XLAAccelerator)
    return accelerator == "cpu" or (accelerator == "auto" and not any(other.is_available() for other in others))


def _several(config: Config) -> bool:
    return config.trainer.devices * config.trainer.num_nodes > 1


def _nothing() -> None:
    pass
