"""Kills one of two processes at a random time; the other must stop, and the repeated command must resume the run.

    python tests/reliability/ranks.py kills=10 seed=0 [json=FILE]

The script starts real commands. It kills each run once, the first or the second process in turn.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import support
from reliability.kills import differences

DDP = ("trainer.strategy=ddp", "trainer.devices=2", "trainer.accelerator=cpu")
GOES_ON = "finished rounds are saved, repeat the command to resume"
LINES = {"first": f"error: process 1 of 2 is gone; {GOES_ON}"}
LINES["second"] = f"error: process 2 of 2 was ended by SIGKILL; {GOES_ON}"
"""The line that the surviving process prints, by the killed process."""


def start(root: Path, folder: Path, log: Path) -> subprocess.Popen:
    """Starts a run of five rounds in two processes; stderr goes to the log."""
    words = support.quick(root, folder, "exp=fedpav_kd_rw", "rounds=5", *DDP)
    with open(log, "w") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "fedreid_pl", "train", *words],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )


def child_of(process: subprocess.Popen) -> int:
    """Returns the id of a process's only child."""
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(child)


def ended(pid: int) -> bool:
    """Returns whether a process is gone or a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z"
    except OSError:
        return True


def wait(condition: Callable[[], bool], limit: float = 120.0) -> float:
    """Waits until a condition is true and returns the seconds that this took.

    Raises:
        TimeoutError: if the condition is not true within the limit.
    """
    begin = time.monotonic()
    while not condition():
        if time.monotonic() - begin > limit:
            raise TimeoutError(f"waited for {limit:.0f} seconds")
        time.sleep(0.02)
    return time.monotonic() - begin


def kill_one(process: subprocess.Popen, victim: str) -> float:
    """Kills the first or the second process and returns the seconds until the other has stopped."""
    child = child_of(process)
    os.kill(process.pid if victim == "first" else child, signal.SIGKILL)
    if victim == "first":
        process.wait()
        return wait(lambda: ended(child))
    return wait(lambda: process.poll() is not None)


def soak(kills: int, seed: int, work: Path) -> dict[str, Any]:
    """Runs all kills and returns a record of each."""
    root, draws, cases = support.write_tiny(work / "data"), random.Random(seed), []
    began = time.monotonic()
    if start(root, work / "whole", work / "whole.log").wait(300):
        raise RuntimeError((work / "whole.log").read_text())
    for number in range(kills):
        folder, log, victim = work / f"run-{number}", work / f"run-{number}.log", ("first", "second")[number % 2]
        process = start(root, folder, log)
        wait((folder / "checkpoints" / "round-00001.ckpt").exists)
        time.sleep(draws.uniform(0, 2))
        case: dict[str, Any] = {"victim": victim, "seconds": kill_one(process, victim), "wrong": []}
        if log.read_text().splitlines()[-1] != LINES[victim]:
            case["wrong"].append(log.read_text()[-500:])
        case["round"] = max(int(path.stem[6:]) for path in (folder / "checkpoints").glob("*.ckpt"))
        code = start(root, folder, log).wait(300)
        case["wrong"] += [f"exit code {code}"] if code else differences(work / "whole", folder)
        cases.append(case)
        print(f"{number + 1} of {kills} kills, {case}", file=sys.stderr, flush=True)
    return {"cases": cases, "seconds": time.monotonic() - began}


if __name__ == "__main__":
    options = {"kills": "10", "seed": "0", "json": ""} | dict(word.split("=", 1) for word in sys.argv[1:])
    with tempfile.TemporaryDirectory() as name:
        report = soak(int(options["kills"]), int(options["seed"]), Path(name))
    if options["json"]:
        Path(options["json"]).write_text(json.dumps(report, indent=1))
    wrong = [case for case in report["cases"] if case["wrong"]]
    longest = max(case["seconds"] for case in report["cases"])
    print(
        f"{len(report['cases'])} times one of two processes was killed; the other stopped within {longest:.1f} seconds"
    )
    print(f"{len(wrong)} ended differently")
    for case in wrong:
        print(case)
    sys.exit(1 if wrong else 0)
