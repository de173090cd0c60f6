"""Kills runs with SIGKILL at random instants, restarts them, and compares them with undisturbed runs.

    python tests/reliability/kills.py kills=100 seed=0 [exps="fedpav_kd_rw fedpav_cc_rw"] [json=FILE] [table=FILE]

Each run is a forked process of this one, which has imported all modules and trained nothing. It runs `main` of the
command line with the same words every time. Half of the kills happen at a random call of a named point (points.py),
each phase in turn; the other half at a random time, from outside. A run is killed one to three times and then
finishes. Its files must equal, to the bit, those of an undisturbed run.
"""

from __future__ import annotations

import itertools
import json
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["WANDB_MODE"] = "offline"
sys.path.insert(0, str(Path(__file__).parents[1]))

import support
import torch
from reliability.points import Points

from fedreid_pl import experiment  # noqa: F401  (imported once for all forks)
from fedreid_pl.cli import main
from fedreid_pl.federation.storage import read_state

ROUNDS = 3
TIMED = ("timings.csv", "report.html", "attempt.json")
"""Files with durations and memory, and the page that shows them; they differ between runs."""
PHASES = ("start", "fit", "collect", "aggregate", "distil", "cluster", "evaluate", "checkpoint", "log")


def words(root: Path, folder: Path, exp: str) -> list[str]:
    """Returns the command that is repeated after each kill."""
    return ["train", f"exp={exp}", *support.quick(root, folder, f"rounds={ROUNDS}", "trainer.accelerator=cpu")]


def launch(command: list[str], log: Path, points: Points, counts: Path | None = None) -> int:
    """Forks a process that runs the command and returns its id."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(target, 1), os.dup2(target, 2)
        torch.set_num_threads(1)
        points.install()
        code = main(command)
        if counts is not None:
            counts.write_text(json.dumps(points.counts))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def wait(child: int, limit: float = 300.0) -> int:
    """Returns the exit code of a process, negative for a signal; raises an error if it does not end in time."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise RuntimeError(f"a run did not end within {limit:.0f} seconds")


def differences(one: Path, other: Path) -> list[str]:
    """Returns the names of files that differ between two runs, apart from times and the folder's name."""
    found = []
    names = {path.relative_to(folder) for folder in (one, other) for path in folder.rglob("*") if path.is_file()}
    for name in sorted(names):
        if name.name in TIMED:
            continue
        left, right = one / name, other / name
        if not (left.is_file() and right.is_file()):
            found.append(f"{name} (only once)")
        elif name.suffix in (".ckpt", ".pt"):
            states = [read_state(left), read_state(right)]
            for state in states:
                state.pop("costs", None), state.pop("turn", None)
            try:
                support.assert_equal(*states)
            except AssertionError:
                found.append(str(name))
        elif name.name == "summary.json":
            first, second = (support.without_times(json.loads(path.read_text())) for path in (left, right))
            found += [str(name)] if first != second else []
        elif left.read_bytes().replace(str(one).encode(), b"") != right.read_bytes().replace(str(other).encode(), b""):
            found.append(str(name))
    return found


class Experiment:
    """One experiment: its undisturbed run, and the number of times the run reaches every point."""

    def __init__(self, name: str, root: Path, work: Path) -> None:
        self.name, self.root, self.work = name, root, work
        self.whole = work / "runs" / name / "whole"  # a separate place, because runs look for others two folders up
        start = time.monotonic()
        code = wait(launch(words(root, self.whole, name), work / f"{name}.log", Points(), work / f"{name}.json"))
        if code:
            raise RuntimeError(
                f"the undisturbed run of {name} ended with {code}:\n{(work / f'{name}.log').read_text()}"
            )
        self.seconds = time.monotonic() - start
        self.counts: dict[str, int] = json.loads((work / f"{name}.json").read_text())

    def choose(self, phase: str, draws: random.Random) -> tuple[str, int] | None:
        """Returns a random call of a random point of a phase, or `None` if the experiment lacks the phase."""
        points = sorted(point for point in self.counts if point.startswith(phase + ":"))
        if not points:
            return None
        point = draws.choice(points)
        return point, draws.randint(1, self.counts[point])


class Torment:
    """Kills runs until the number of kills is reached.

    Args:
        experiments: the experiments to run, in turn.
        seed: the seed of the random instants.
    """

    def __init__(self, experiments: list[Experiment], seed: int) -> None:
        self.experiments, self.draws = experiments, random.Random(seed)
        self.phases = itertools.cycle(PHASES)
        self.by_time = itertools.cycle((False, True))
        self.kills: list[dict[str, str]] = []
        self.wrong: list[dict[str, Any]] = []
        self.runs = 0

    def run(self, kills: int) -> None:
        """Adds to `kills` and `wrong`, and prints the progress on stderr."""
        while len(self.kills) < kills:
            exp = self.experiments[self.runs % len(self.experiments)]
            self.runs += 1
            self._one(exp, min(self.draws.randint(1, 3), kills - len(self.kills)))
            print(f"{len(self.kills)} of {kills} kills, {len(self.wrong)} wrong", file=sys.stderr, flush=True)

    def _one(self, exp: Experiment, times: int) -> None:
        """Kills one run several times and then lets it finish."""
        folder, log = exp.work / "runs" / exp.name / str(self.runs), exp.work / f"{exp.name}-{self.runs}.log"
        command = words(exp.root, folder, exp.name)
        before, code = len(self.kills), -signal.SIGKILL
        for _ in range(times):
            code, kill = self._kill(exp, command, log)
            if code != -signal.SIGKILL:
                break  # the run ended before the instant
            self.kills.append(kill)
        if code in (0, -signal.SIGKILL):
            code = wait(launch(command, log, Points()))
        wrong = [f"exit code {code}"] if code else differences(exp.whole, folder)
        if wrong:
            killed = self.kills[before:]
            self.wrong.append({"exp": exp.name, "wrong": wrong, "kills": killed, "log": log.read_text()[-3000:]})
        shutil.rmtree(folder)

    def _kill(self, exp: Experiment, command: list[str], log: Path) -> tuple[int, dict[str, str]]:
        """Starts the command and kills it; returns the exit code and the last point."""
        place, by_time = mmap.mmap(-1, 64), next(self.by_time)
        target = None if by_time else next(filter(None, (exp.choose(phase, self.draws) for phase in self.phases)))
        child = launch(command, log, Points(target, place))
        if by_time:
            time.sleep(self.draws.uniform(0, exp.seconds))
            os.kill(child, signal.SIGKILL)
        code = wait(child)
        point = bytes(place).decode().strip("\0 ") or "start: before anything"
        return code, {"exp": exp.name, "how": "time" if by_time else "point", "point": point}


def soak(kills: int, seed: int, names: list[str], work: Path) -> dict[str, Any]:
    """Runs all kills; returns their places and the differences found afterwards."""
    root = support.write_tiny(work / "data")
    torment = Torment([Experiment(name, root, work) for name in names], seed)
    torment.run(kills)
    seconds = {exp.name: exp.seconds for exp in torment.experiments}
    return {"kills": torment.kills, "runs": torment.runs, "wrong": torment.wrong, "seconds": seconds}


def table(report: dict[str, Any]) -> str:
    """Returns a Markdown table of kills by phase and by how the instant was chosen."""
    counts = Counter((kill["point"].split(":")[0], kill["exp"], kill["how"]) for kill in report["kills"])
    names = sorted({kill["exp"] for kill in report["kills"]})
    columns = [(name, how) for name in names for how in ("point", "time")]
    lines = ["| phase | " + " | ".join(f"{name}, by {how}" for name, how in columns) + " | kills |"]
    lines.append("|---|" + "---:|" * (len(columns) + 1))
    for phase in PHASES:
        row = [counts[phase, name, how] for name, how in columns]
        lines.append(f"| {phase} | " + " | ".join(map(str, row)) + f" | {sum(row)} |")
    sums = [sum(counts[phase, name, how] for phase in PHASES) for name, how in columns]
    lines.append("| sum | " + " | ".join(map(str, sums)) + f" | {sum(sums)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    options = {"kills": "100", "seed": "0", "exps": "fedpav_kd_rw fedpav_cc_rw", "json": "", "table": ""}
    options |= dict(word.split("=", 1) for word in sys.argv[1:])
    with tempfile.TemporaryDirectory() as folder:
        report = soak(int(options["kills"]), int(options["seed"]), options["exps"].split(), Path(folder))
    text = table(report)
    if options["json"]:
        Path(options["json"]).write_text(json.dumps(report, indent=1))
    if options["table"]:
        Path(options["table"]).write_text(text + "\n")
    print(f"{text}\n\n{len(report['kills'])} kills in {report['runs']} runs, {len(report['wrong'])} ended differently")
    for case in report["wrong"]:
        print(f"{case['exp']}: {case['wrong']} after {case['kills']}\n{case['log']}")
    sys.exit(1 if report["wrong"] else 0)
