"""Disturbs runs with engine=ray repeatedly and compares them, bit by bit, with runs of the sequential engine.

    python tests/reliability/ray_kills.py kills=20 seed=0 [exps="scaffold fedpav_rw"] [json=FILE]

In turn, SIGKILL hits a slot at a random time, a slot during a turn, Ray's process on this machine (raylet), and the
driver. The script repeats the command until it ends with exit code 0.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["WANDB_MODE"] = "offline"
sys.path.insert(0, str(Path(__file__).parents[1]))

import support
from reliability.kills import differences

from fedreid_pl.engines.ray import leftovers

KINDS = ("slot", "busy slot", "raylet", "driver")
ROUNDS = 4


def start(root: Path, folder: Path, exp: str, log: Path, *words: str) -> subprocess.Popen:
    """Starts the command in a separate process."""
    common = support.quick(root, folder, f"rounds={ROUNDS}", "trainer.accelerator=cpu")
    command = [sys.executable, "-m", "fedreid_pl", "train", f"exp={exp}", *common, *words]
    with open(log, "a") as file:
        return subprocess.Popen(command, stdout=file, stderr=file)


def victims(driver: int, kind: str) -> list[int]:
    """Returns the ids of the processes of a kind that belong to a driver's Ray."""
    if kind == "driver":
        return [driver]
    found = []
    for folder, owner, _ in leftovers.marked_sessions():
        for number in leftovers.processes_of(folder) if owner == driver else ():
            try:
                title = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
            except OSError:
                continue
            if title.startswith("ray::Slot.do" if kind == "busy slot" else "ray::Slot") and "slot" in kind:
                found.append(number)
            if kind == "raylet" and title.endswith("/raylet"):
                found.append(number)
    return found


def disturbed(root: Path, folder: Path, exp: str, kind: str, draws: random.Random, log: Path) -> bool:
    """Starts the command, kills once, and repeats the command until it succeeds; returns whether a process was hit."""
    process = start(root, folder, exp, log, "engine=ray", "engine.slots=2")
    struck = False
    wait = draws.uniform(0, 3)
    begun: float | None = None
    while process.poll() is None:
        time.sleep(0.02)
        if begun is None:
            begun = time.monotonic() if (folder / "checkpoints" / "attempt.json").exists() else None
        elif not struck and time.monotonic() - begun > wait and (found := victims(process.pid, kind)):
            os.kill(draws.choice(found), signal.SIGKILL)
            struck = True
    for _ in range(3):
        if process.returncode == 0:
            return struck
        process = start(root, folder, exp, log, "engine=ray", "engine.slots=2")
        process.wait(600)
    raise RuntimeError(f"{exp} after {kind}: exit code {process.returncode}\n{log.read_text()[-3000:]}")


def main() -> int:
    """Runs and compares all disturbances, prints the results, and returns the exit code."""
    options = {"kills": "20", "seed": "0", "exps": "scaffold fedpav_rw", "json": ""}
    options |= dict(word.split("=", 1) for word in sys.argv[1:])
    draws, kinds, done = random.Random(int(options["seed"])), itertools.cycle(KINDS), list[dict[str, object]]()
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        root = support.write_tiny(work / "data")
        exps = options["exps"].split()
        for exp in exps:
            if start(root, work / "runs" / exp / "whole", exp, work / "log").wait(600):
                raise RuntimeError((work / "log").read_text())
        for number, exp in zip(range(10 * int(options["kills"])), itertools.cycle(exps), strict=False):
            if sum(bool(entry["struck"]) for entry in done) >= int(options["kills"]):
                break
            kind, folder, log = next(kinds), work / "runs" / exp / str(number), work / f"log{number}"
            struck = disturbed(root, folder, exp, kind, draws, log)
            wrong = differences(work / "runs" / exp / "whole", folder)
            wrong = [name for name in wrong if not name.startswith(("config.yaml", "wandb"))]
            done.append({"exp": exp, "kind": kind, "struck": struck, "wrong": wrong})
            print(f"{len(done)}: {exp}, {kind}: {wrong or 'equal'}{'' if struck else ' (not struck)'}", flush=True)
            shutil.rmtree(folder)
    if options["json"]:
        Path(options["json"]).write_text(json.dumps(done, indent=1))
    bad = [entry for entry in done if entry["wrong"]]
    counts = {kind: sum(1 for entry in done if entry["kind"] == kind and entry["struck"]) for kind in KINDS}
    print(f"{sum(counts.values())} kills ({counts}), {len(bad)} runs ended differently")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
