"""Watches the processes of a run on this machine: if one process dies, the others print an error and stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment

from fedreid_pl.errors import FedReIDError

EVERY = 0.5  # seconds between two checks
GRACE = 5.0  # seconds after the loss of a process in which this process may stop by itself, before it is ended
TURN = 2.0  # seconds that another process waits, so that the first process prints an error that all of them raise
GOES_ON = "finished rounds are saved, repeat the command to resume"


class Peers:
    """Watches the processes of a run, as a context manager around the run.

    The connections of a killed process close. The other processes then usually fail in their next collective
    operation, with a message that does not name the cause. A process that computes alone, or that waits in a
    collective operation, would not notice the loss. Therefore a thread checks the processes themselves: the first
    process checks the processes that it started, and these check the first process. A launcher (torchrun, SLURM)
    watches the processes that it starts.

    Args:
        children: processes that this process started.
        parent: id of the process that started this process, if the parent belongs to the run.
        rank: number of this process, from 0.
        world: number of processes in the run.
    """

    def __init__(
        self, children: Sequence[subprocess.Popen] = (), parent: int | None = None, rank: int = 0, world: int = 1
    ) -> None:
        self.children, self.parent, self.rank, self.world = list(children), parent, rank, world
        self._over = threading.Event()

    def lost(self) -> str | None:
        """Returns one line about a process that ended too early, `None` if all processes run."""
        if self.parent is not None and os.getppid() != self.parent:
            return f"process 1 of {self.world} is gone"
        for number, child in enumerate(self.children, 2):
            code = child.poll()
            if code is not None and code < 0:
                return f"process {number} of {self.world} was ended by {signal.Signals(-code).name}"
            if code:
                return f"process {number} of {self.world} ended with exit code {code}"
        return None

    def __enter__(self) -> Peers:
        if self.children or self.parent is not None:
            threading.Thread(target=self._watch, daemon=True, name="peers").start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._over.set()
        if error is None or not (self.children or self.parent is not None):
            return
        if of_communication(error):
            if text := self._wait_for_loss():
                if self.rank:
                    self._say(text)
                self._end_children()
                raise FedReIDError(f"{text}; {GOES_ON}") from error
        elif self.rank and isinstance(error, FedReIDError):
            time.sleep(TURN)  # the first process prints an error that all raise, and then ends the others
            print(f"error: process {self.rank + 1} of {self.world}: {error}", file=sys.stderr, flush=True)
        self._end_children()

    def _watch(self) -> None:
        while not self._over.wait(EVERY):
            if text := self.lost():
                if self._over.wait(GRACE):
                    return  # the run stopped by itself and prints the reason
                self._say(text)
                self._end_children()
                os._exit(2)

    def _say(self, text: str) -> None:
        print(f"error: {text}; {GOES_ON}", file=sys.stderr, flush=True)

    def _wait_for_loss(self) -> str | None:
        end = time.monotonic() + GRACE
        while time.monotonic() < end:
            if text := self.lost():
                return text
            time.sleep(0.05)
        return None

    def _end_children(self) -> None:
        for child in self.children:  # only the first process writes files, so nothing is left half-written
            child.kill()


def peers_of(trainer: pl.Trainer) -> Peers:
    """Returns the `Peers` of the processes that Lightning started for a run; works in each of these processes.

    Lightning's own watching thread kills the first process and prints nothing. This function stops that thread.
    """
    for thread in threading.enumerate():
        if thread.name == "child-process-observer":
            thread._finished = True  # type: ignore[attr-defined]
    started = isinstance(getattr(trainer.strategy, "cluster_environment", None), LightningEnvironment)
    children = getattr(trainer.strategy.launcher, "procs", []) if started else []
    parent = os.getppid() if started and trainer.local_rank > 0 else None
    return Peers(children, parent, trainer.global_rank, trainer.world_size)


def of_communication(error: BaseException) -> bool:
    """Returns whether `error`, or an error that caused it, comes from a collective operation that lost a process."""
    cause: BaseException | None = error
    while cause is not None:
        words = str(cause).lower()
        if isinstance(cause, torch.distributed.DistError) or (
            isinstance(cause, RuntimeError) and any(word in words for word in ("gloo", "nccl", "connection", "socket"))
        ):
            return True
        cause = cause.__cause__
    return False
