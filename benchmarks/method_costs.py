"""Measures time and peak memory of every method's training step relative to FedPav's.

    python benchmarks/method_costs.py [--repeats 3] [--steps 4] [--methods NAME ...]
    python benchmarks/method_costs.py --page         # writes docs/method_costs.md

Synthetic images. Two clients of MiniReID (version 1: mini-prid2011, mini-viper) train ResNet-18 at 128 x 64 pixels, in
batches of 32, with one thread, each run in a separate process. Methods alternate, with FedPav before every third one;
rows in results/method_costs.csv are not measured again. Seconds are processor time of training in rounds 2 and 3 of 4:
the first round decodes images and some methods have no term in it, and the last round is evaluated. Memory is the peak
of the whole process.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported

from figures import machine
from leave_one_out import BASELINE, FORK, METHODS, run_command

from fedreid_pl.federation.server import costs
from fedreid_pl.reporting.run_folder import read_timings
from fedreid_pl.reporting.summary_file import read_summary

PAGE = Path(__file__).parent.parent / "docs" / "method_costs.md"
RESULTS = Path(__file__).parent.parent / "results" / "method_costs.csv"
COLUMNS = ("turn", "place", "method", "steps", "ms_a_step", "peak_mb")
ROUNDS = 4
NO_ROUNDS = ("local", "centralized")  # other clients or other steps
COMPARED = [name for name in METHODS if name not in (BASELINE, *NO_ROUNDS)]
SETTING = (
    "data=minireid_v1",  # has small test sets; evaluations are not measured
    "data.datasets=[mini-prid2011,mini-viper]",
    "data.public=null",
    "data.height=128",
    "data.width=64",
    "model.name=resnet18",
    "model.weights=none",
    f"rounds={ROUNDS}",
    f"evaluate_every={ROUNDS}",
    "report.images=false",
    "logger=none",
    "trainer.accelerator=cpu",
)


class Cost(NamedTuple):
    """Training seconds of a round, and peak memory of the process in MB."""

    seconds: float
    memory: float


def measured(method: str, steps: int) -> Cost:
    """Runs one method.

    Raises:
        SystemExit: if the run fails, with the end of its output.
    """
    with tempfile.TemporaryDirectory() as place:
        folder, log = Path(place) / "run", Path(place) / "log"
        more = ["data.val_ids=0.1"] if method == "sscu" else []
        words = ["train", f"exp={method}", *SETTING, f"local_steps={steps}", *more, f"output_dir={folder}"]
        process = FORK.Process(target=run_by_processor_time, args=(words, log))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"{method}: {log.read_text(errors='replace')[-2000:]}")
        rounds = read_timings(folder).series("system", "fit", "seconds")
        summary = read_summary(folder) or {}
    seconds = statistics.median(value for round, value in rounds.items() if 1 < round < ROUNDS)
    return Cost(seconds, summary["costs"]["peak_memory_bytes"] / 1e6)


def run_by_processor_time(words: Sequence[str], log: Path) -> None:
    """Runs `fedreid-pl` with processor time as its clock, which excludes other work on the machine."""
    costs.time = SimpleNamespace(perf_counter=time.process_time)  # type: ignore[attr-defined]
    run_command(words, log)


def measure(methods: Sequence[str], repeats: int, steps: int) -> None:
    """Measures missing rows: all methods in turn, `repeats` times, with FedPav before every third one."""
    done = {(row["turn"], row["method"], row["place"]) for row in read_rows() if row["steps"] == str(steps)}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    for turn in range(repeats):
        order = [name for place, name in enumerate(methods) for name in ([BASELINE] * (place % 3 == 0) + [name])]
        for place, name in enumerate(order):
            if (str(turn), name, str(place)) in done:
                continue
            cost = measured(name, steps)
            new = not RESULTS.exists()
            with open(RESULTS, "a", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                if new:
                    writer.writerow(COLUMNS)
                ms = 1000 * cost.seconds / (2 * steps)
                writer.writerow([turn, place, name, steps, f"{ms:.1f}", f"{cost.memory:.1f}"])
            print(f"{turn + 1} of {repeats}: {name} {ms:.0f} ms a step", file=sys.stderr)


def read_rows() -> list[dict[str, str]]:
    """Returns the saved measurements."""
    if not RESULTS.exists():
        return []
    with open(RESULTS, newline="") as file:
        return list(csv.DictReader(file))


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Returns Markdown: minimum time and memory of each method's runs, and their ratios to FedPav's."""
    times: dict[str, list[float]] = {}
    sizes: dict[str, list[float]] = {}
    for row in rows:
        times.setdefault(row["method"], []).append(float(row["ms_a_step"]))
        sizes.setdefault(row["method"], []).append(float(row["peak_mb"]))
    lines = [
        "| method | time of a step / FedPav's | ms a step, least (most) | peak memory / FedPav's | MB | runs |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, own in times.items():
        ratio, size = min(own) / min(times[BASELINE]), min(sizes[name]) / min(sizes[BASELINE])
        cells = (f"`{name}`", f"{ratio:.2f}", f"{min(own):.0f} ({max(own):.0f})", f"{size:.2f}")
        lines.append(f"| {' | '.join(cells)} | {min(sizes[name]):.0f} | {len(own)} |")
    return "\n".join(lines)


def page(rows: Sequence[Mapping[str, str]], command: str) -> str:
    """Returns the text of docs/method_costs.md."""
    base = [float(row["ms_a_step"]) for row in rows if row["method"] == BASELINE]
    spread = max(base) / min(base)
    return f"""# What a method's training step costs

<!-- written by `{command} --page` -->

Two clients of MiniReID (synthetic, version 1: mini-prid2011, mini-viper) train ResNet-18 at 128 x 64 pixels, in
batches of 32, with one thread. Each run is a process of its own; the methods took turns, with FedPav before every
third.
{machine()}.

    {command}
    {command} --page     # writes this page from results/method_costs.csv

{table(rows)}

A method's time is the least of its runs: other work on the machine only adds to it, as the most in brackets shows.
FedPav's own runs differ by a factor of up to {spread:.2f}: a smaller ratio of a method with one run says nothing.
Times are processor time and hold all of a client's turn: its steps, and what the method computes before and after them.
Memory is the peak of the whole process, of which the program without a network takes most.
"""


def main() -> int:
    """Measures missing rows, or writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--methods", nargs="+", default=COMPARED)
    parser.add_argument("--page", action="store_true", help="write docs/method_costs.md from the saved measurements")
    arguments = parser.parse_args()
    if arguments.page:
        PAGE.write_text(page(read_rows(), "python benchmarks/method_costs.py"), encoding="utf-8")
        return 0
    measure(arguments.methods, arguments.repeats, arguments.steps)
    print(table(read_rows()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
