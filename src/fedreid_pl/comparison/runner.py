"""Trains the runs of a comparison, each in its own process, and up to `jobs` of them at the same time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedreid_pl.comparison.plan import PlannedRun
from fedreid_pl.config.launch import clean_environment
from fedreid_pl.errors import visible
from fedreid_pl.reporting.status import duration

PAUSE = 0.1  # seconds between two checks of the child processes
PATIENCE = 60.0  # seconds after an interruption in which a child may end by itself
LOG = "train.log"


@dataclass(eq=False)
class Child:
    """A run in training.

    Attributes:
        log: file of its output, `None` if the output goes to the terminal.
        offset: size of the log file at the start of the process, in bytes.
    """

    run: PlannedRun
    number: int
    process: subprocess.Popen
    started: float
    log: Path | None = None
    offset: int = 0


def train_runs(
    runs: Sequence[PlannedRun],
    jobs: int,
    threads: int | None = None,
    trained: Callable[[PlannedRun], None] | None = None,
) -> None:
    """Trains `runs` in their order, at most `jobs` at once, and prints the start and the outcome of each run.

    With one job, the output of a run goes to stderr; with several jobs, to `train.log` in the run's folder. A failed
    run does not stop the others. An interruption of this process also interrupts the runs; the process waits for them.

    Args:
        threads: number of threads of each run; its output then goes to `train.log`. `None` divides the cores evenly.
        trained: called with every run that has ended without an error, after its outcome is printed.
    """
    waiting = list(enumerate(runs, 1))
    children: list[Child] = []
    try:
        while waiting or children:
            while waiting and len(children) < jobs:
                number, run = waiting.pop(0)
                _say(f"run {number} of {len(runs)}: {run.name} starts, folder {run.folder}")
                try:
                    children.append(_start(run, number, jobs, threads))
                except OSError as error:
                    _say(f"run {number} of {len(runs)}: {run.name} failed: {run.folder}: {error.strerror or error}")
            ended = [child for child in children if child.process.poll() is not None]
            for child in ended:
                children.remove(child)
                _say(f"run {child.number} of {len(runs)}: {child.run.name} {_outcome(child)}")
                if trained and child.process.returncode == 0:
                    trained(child.run)
            if not ended:
                time.sleep(PAUSE)
    finally:
        _stop(children)


def last_error(text: str) -> str:
    """Returns the last line that starts with `error: `, without this prefix; otherwise the last line with text.

    >>> last_error("round 1\\nerror: no room\\nbye\\n"), last_error("Killed\\n\\n"), last_error("")
    ('no room', 'Killed', 'it said nothing')
    """
    lines = [line.rpartition("\r")[2].strip() for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or ["it said nothing"])[-1]


def _start(run: PlannedRun, number: int, jobs: int, threads: int | None) -> Child:
    command = [sys.executable, "-m", "fedreid_pl", "train", *run.words, "resume=auto"]
    started = time.monotonic()
    environment = clean_environment(os.environ)
    if jobs == 1 and threads is None:  # stdout is reserved for the tables
        return Child(run, number, subprocess.Popen(command, env=environment, stdout=2), started)
    if threads is None:
        environment = {"OMP_NUM_THREADS": str(max(1, _cores() // jobs)), **environment}
    else:
        environment = {**environment, "OMP_NUM_THREADS": str(threads)}
    run.folder.mkdir(parents=True, exist_ok=True)
    path = run.folder / LOG
    with open(path, "ab") as log:
        offset = log.tell()
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
    return Child(run, number, process, started, path, offset)


def _outcome(child: Child) -> str:
    took = duration(time.monotonic() - child.started)
    if child.process.returncode == 0:
        return f"is done after {took}"
    if child.log is None:
        return f"failed after {took}, with the error above"
    with open(child.log, "rb") as log:
        log.seek(child.offset)
        return f"failed after {took}: {last_error(log.read().decode(errors='replace'))}; see {child.log}"


def _stop(children: Sequence[Child]) -> None:
    for child in children:
        child.process.terminate()  # the run saves its state, as after Ctrl-C
    limit = time.monotonic() + PATIENCE
    for child in children:
        try:
            child.process.wait(max(0.0, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _say(text: str) -> None:
    print(visible(text), file=sys.stderr, flush=True)
