"""Clients in separate processes: an engine that exchanges only bytes and shuffles the answers."""

from __future__ import annotations

import multiprocessing
import os
import random
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from fedreid_pl.clients import build_worker
from fedreid_pl.config import load_config
from fedreid_pl.engines import EngineParts
from fedreid_pl.federation.messages import ClientJob, ClientUpdate, from_bytes, to_bytes


class Interruption(BaseException):
    """Raised to stop a run in the middle of a round."""


class ClientProcess:
    """A process that runs clients' turns from a configuration and a folder, and exchanges only bytes."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs,), daemon=True)
        self.process.start()

    def close(self) -> None:
        self.pipe.close()
        self.process.join(10)


class RemoteEngine:
    """An engine over processes: distributes jobs in turn and returns answers in a random order.

    Args:
        processes: the processes that run the jobs.
        parts: the arguments of every engine.
        home: the working folder of the processes, not the run's folder.
        stop: number of the training turn at which the run is interrupted; `None` disables the interruption.
    """

    def __init__(self, processes: list[ClientProcess], parts: EngineParts, home: Path, stop: int | None = None) -> None:
        self.processes, self.parts, self.turns, self.stop = processes, parts, 0, stop
        self.draws, self.closed = random.Random(5), 0
        for process in processes:
            process.pipe.send(("begin", str(parts.folder / "config.yaml"), str(home)))
        assert [process.pipe.recv_bytes() for process in processes] == [b""] * len(processes)

    def fit(self, jobs: Iterable[ClientJob]) -> Iterator[ClientUpdate]:
        return self._run(jobs, self._count)

    def evaluate(self, jobs: Iterable[ClientJob]) -> Iterator[ClientUpdate]:
        return self._run(jobs, lambda: None)

    def close(self) -> None:
        self.closed += 1

    def _count(self) -> None:
        self.turns += 1
        if self.turns == self.stop:
            raise Interruption

    def _run(self, jobs: Iterable[ClientJob], begin: Callable[[], None]) -> Iterator[ClientUpdate]:
        sent = list(jobs)
        answers: list[ClientUpdate] = []
        for start in range(0, len(sent), len(self.processes)):
            pairs = list(zip(self.processes, sent[start : start + len(self.processes)], strict=False))
            for _ in pairs:
                begin()  # the pipes contain no answers now
            for process, job in pairs:
                self.parts.announce(job)
                process.pipe.send(("do", to_bytes(job)))
            for process, _ in pairs:
                update = from_bytes(process.pipe.recv_bytes())
                for look in process.pipe.recv():
                    self.parts.deliver(look)
                assert isinstance(update, ClientUpdate)
                answers.append(update)
        self.draws.shuffle(answers)
        yield from answers


def serve(pipe: Connection) -> None:
    """Main function of the process: builds the clients of a configuration and runs the received jobs."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    worker: Any = None
    while True:
        try:
            what, *rest = pipe.recv()
        except EOFError:
            return
        if what == "begin":
            worker = build_worker(load_config(Path(rest[0])), Path(rest[1]))
            pipe.send_bytes(b"")
        else:
            pipe.send_bytes(to_bytes(worker.do(from_bytes(rest[0]))))
            pipe.send(worker.take_looks())
