"""Finds the launcher that started this process, such as torchrun or SLURM, or its stale variables. Imports no torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import NamedTuple

from fedreid_pl.config.schema import Config
from fedreid_pl.config.values import whole_number
from fedreid_pl.errors import FedReIDError

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""Environment variables from which Lightning reads the rank of this process; the first that is set counts."""

OTHERS = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "SLURM_LOCALID", "SLURM_NODEID")
STARTED = "FEDREID_PL_STARTED_BY"
"""Environment variable with the id of the first process, which sets it for the processes that it starts."""


class Launcher(NamedTuple):
    """The program that started this process together with others.

    Attributes:
        name: name of the launcher, for messages.
        world: number of processes that the launcher started; `None` if unknown.
        started: `True` if the launcher certainly started this process; `False` if the variables may be stale.
    """

    name: str
    world: int | None
    started: bool = True


def find_launcher() -> Launcher | None:
    """Returns the launcher that the environment variables describe; `None` if there is none."""
    given = os.environ
    if given.get(STARTED) == str(os.getppid()) and "LOCAL_RANK" in given:
        return Launcher("fedreid-pl", None)
    if "TORCHELASTIC_RUN_ID" in given and "RANK" in given:
        return Launcher("torchrun", _number(given.get("WORLD_SIZE")))
    if "SLURM_NTASKS" in given and given.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        return Launcher("SLURM", _number(given["SLURM_NTASKS"]))
    if "MASTER_ADDR" in given and "MASTER_PORT" in given and ("LOCAL_RANK" in given or "RANK" in given):
        return Launcher("another launcher", _number(given.get("WORLD_SIZE")), started=False)
    return None


def ignore_leftovers() -> None:
    """Removes stale launcher variables from the environment and prints one warning that names them."""
    if find_launcher() is None:
        _remove("no launcher started this process")


def check_launch(config: Config) -> None:
    """Checks that the launcher started one process per device.

    Raises:
        FedReIDError: if the numbers differ; the message names the launcher, both numbers and the key to set.
    """
    c, launcher = config.trainer, find_launcher()
    wanted = c.devices * c.num_nodes
    nodes_started = {"NODE_RANK", "MASTER_ADDR", "MASTER_PORT"} <= set(os.environ)  # by hand, once on every machine
    if launcher is None and c.num_nodes > 1 and not nodes_started:
        raise FedReIDError(
            f"trainer.num_nodes={c.num_nodes}: no launcher started this process, and the program starts processes on "
            "one machine only; start the command on every machine with torchrun --nnodes or srun"
        )
    if launcher is None or launcher.name == "fedreid-pl":
        return
    if launcher.name == "SLURM":
        _check_slurm(config, launcher)
    elif launcher.world is not None and launcher.world != wanted:
        if not launcher.started and wanted == 1:
            _remove("the run has one device")
            return
        raise FedReIDError(
            f"{launcher.name} started {launcher.world} processes, but trainer.devices={c.devices} and "
            f"trainer.num_nodes={c.num_nodes} make {wanted}; set trainer.devices={launcher.world // c.num_nodes}, "
            f"or start {wanted}"
        )


def refuse_launcher(command: str) -> None:
    """Raises an error if a launcher started several processes of a command that starts its own processes.

    Raises:
        FedReIDError: if a launcher started this command more than once.
    """
    launcher = find_launcher()
    if launcher is not None and launcher.started and (launcher.world or 1) > 1:
        raise FedReIDError(
            f"{command}: starts its runs itself, but {launcher.name} started it {launcher.world} times; start it once"
        )


def clean_environment(given: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment without the variables of launchers, to start a run as a separate process."""
    gone = (*RANKS, *OTHERS, STARTED, "NODE_RANK", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
    kinds = ("TORCHELASTIC_", "SLURM_NTASKS", "SLURM_STEP", "SLURM_TASKS", "ROLE_", "GROUP_")
    return {name: value for name, value in given.items() if name not in gone and not name.startswith(kinds)}


def _check_slurm(config: Config, launcher: Launcher) -> None:
    c, given = config.trainer, os.environ
    wanted = c.devices * c.num_nodes
    if launcher.world != wanted:
        raise FedReIDError(
            f"SLURM_NTASKS={given['SLURM_NTASKS']}, but trainer.devices={c.devices} and "
            f"trainer.num_nodes={c.num_nodes} make {wanted}: submit with --ntasks={wanted}, or set trainer.devices "
            "to the tasks of a node and start with srun; unset SLURM_NTASKS if SLURM does not start this run"
        )
    nodes = given.get("SLURM_NNODES")
    if nodes is not None and _number(nodes) != c.num_nodes:
        raise FedReIDError(f"SLURM_NNODES={nodes}, but trainer.num_nodes={c.num_nodes}: set trainer.num_nodes={nodes}")
    if _number(given.get("SLURM_NTASKS_PER_NODE", str(c.devices))) != c.devices:
        raise FedReIDError(
            f"SLURM_NTASKS_PER_NODE={given['SLURM_NTASKS_PER_NODE']}, but trainer.devices={c.devices}: "
            "make the two equal"
        )
    if wanted == 1:  # a single process does not need the SLURM variables
        for name in (*RANKS, *OTHERS, "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE"):
            given.pop(name, None)
        return
    if "SLURM_PROCID" not in given or "SLURM_LOCALID" not in given:
        raise FedReIDError(
            f"SLURM_NTASKS={wanted}, but this process was not started by srun: put srun before the command"
        )
    given.setdefault("SLURM_NTASKS_PER_NODE", str(c.devices))


def _remove(reason: str) -> None:
    left = [f"{name}={os.environ[name]}" for name in RANKS if os.environ.get(name, "0") != "0"]
    for name in (*RANKS, *OTHERS):
        os.environ.pop(name, None)
    if left:
        print(f"warning: {' and '.join(left)} in the environment: ignored, {reason}", file=sys.stderr, flush=True)


def _number(text: str | None) -> int | None:
    return None if text is None else whole_number(text)
