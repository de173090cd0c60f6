"""Compares rounds of MiniReID (synthetic) on two Ray slots with the sequential engine with one and two threads.

    python benchmarks/ray_rounds.py [--repeats 4] [--rounds 12] [--slots 2]

Every run is `fedreid-pl train exp=fedpav evaluate_every=1` in a separate process; the three kinds alternate. Seconds
come from timings.csv: the median over a run's rounds except the first, which decodes images. A ratio compares two runs
of one repetition. Start-up is the printed time until the first slot is ready. Then, on one Ray instance, the script
measures an empty job, and the transfer of a 100 MB model to all slots. The ratios are meaningful only with at least two
idle cores.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch
from figures import Report

from fedreid_pl.config import compose
from fedreid_pl.engines.ray.cluster import Cluster
from fedreid_pl.engines.ray.wire import pack
from fedreid_pl.federation.server.history import History
from fedreid_pl.reporting.run_folder import read_timings


class Run(NamedTuple):
    """Median seconds of a round, and seconds of the start."""

    fit: float
    evaluate: float
    start: float
    bound: float


def run(folder: Path, threads: int, rounds: int, words: list[str]) -> Run:
    """Runs one training in a separate process."""
    command = [sys.executable, "-m", "fedreid_pl", "train", "exp=fedpav", f"rounds={rounds}", "evaluate_every=1"]
    more = ["trainer.accelerator=cpu", "logger=none", f"output_dir={folder}", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run([*command, *more], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    timings = read_timings(folder)
    fit, evaluate = (_median(timings, name, "seconds") for name in ("fit", "evaluate"))
    start = sum(timings.series("system", "slots", "start_seconds").values())
    return Run(fit, evaluate, start, _median(timings, "slots", "fit_bound_seconds"))


def _median(timings: History, name: str, metric: str) -> float:
    values = [value for round, value in timings.series("system", name, metric).items() if round > 1]
    return statistics.median(values) if values else 0.0


def costs_of_a_job(slots: int, repeats: int) -> tuple[list[float], list[float]]:
    """Returns the seconds of empty calls, and of sending 100 MB to all slots."""
    cluster = Cluster(compose(["engine=ray", f"engine.slots={slots}", "trainer.accelerator=cpu"]))
    try:
        cluster.wait()
        import ray

        actors = [cluster.start_slot() for _ in range(slots)]
        ray.get([actor.ready.remote() for actor in actors])
        empty, large = [], []
        state = {str(number): torch.randn(250_000) for number in range(100)}  # 100 MB
        for _ in range(repeats):
            start = time.perf_counter()
            ray.get(actors[0].ready.remote())
            empty.append(time.perf_counter() - start)
            start = time.perf_counter()
            reference = ray.put(pack(state))
            ray.get([actor.receive.remote(reference) for actor in actors])
            large.append(time.perf_counter() - start)
        return empty, large
    finally:
        cluster.close()


def main() -> None:
    """Measures and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument(
        "--data", nargs="*", default=[], help="additional settings of every run, such as data.clients=2"
    )
    parser.add_argument("--json", type=Path, help="JSON file for the figures; they are always printed")
    args = parser.parse_args()
    report = Report("Ray")
    kinds = {
        "one": (1, list[str]()),
        "two": (2, list[str]()),
        "ray": (1, ["engine=ray", f"engine.slots={args.slots}"]),
    }
    found: dict[str, list[Run]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(args.repeats):
            for kind in sorted(kinds, reverse=bool(repeat % 2)):
                threads, words = kinds[kind]
                found[kind].append(run(Path(folder) / f"{kind}{repeat}", threads, args.rounds, [*args.data, *words]))
    ray, one, two = found["ray"], found["one"], found["two"]
    slots = f"{args.slots} slots of 1 thread"
    report.add(f"fit of a round, {slots} / sequential, 1 thread", _ratios(ray, one, "fit"), "at most 0.58")
    report.add(f"fit of a round, {slots} / sequential, 2 threads", _ratios(ray, two, "fit"), "at most 0.70")
    report.add(f"the bound of {slots} / sequential, 1 thread", [a.bound / b.fit for a, b in zip(ray, one, strict=True)])
    report.add(f"evaluation, {slots} / sequential, 1 thread", _ratios(ray, one, "evaluate"), "at most 0.65")
    report.add("start-up until the first slot is ready", [entry.start for entry in ray], "at most 20 s", unit="s")
    empty, large = costs_of_a_job(args.slots, 20)
    report.add("an empty job", empty[1:], "at most 0.03 s", unit="s")
    report.add(f"100 MB to {args.slots} slots", large[1:], "at most 0.15 s", unit="s")
    report.finish(args.json)


def _ratios(many: list[Run], few: list[Run], name: str) -> list[float]:
    return [getattr(one, name) / getattr(other, name) for one, other in zip(many, few, strict=True)]


if __name__ == "__main__":
    main()
