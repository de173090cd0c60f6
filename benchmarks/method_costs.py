"""Time and peak memory of every method's training step relative to FedPav's, measured in turn.

    python benchmarks/method_costs.py [--repeats 3] [--steps 10] [--methods NAME ...] [--page]

Synthetic pictures. Two clients of MiniReID (version 1: mini-prid2011, mini-viper) train ResNet-18 at 128 x 64 pixels,
in batches of 32, with one thread. A method's run and one of FedPav alternate, each in a process of its own: a ratio is
of two runs that followed each other. Seconds are processor time of training in rounds 2 and 3 of 4: in the first one
pictures are decoded and some methods take no term, the last one is evaluated. Memory is the peak of the whole process.
`--page` writes docs/method_costs.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

from figures import machine
from leave_one_out import BASELINE, FORK, METHODS, run_command

from fedreid_pl.federation.server import costs
from fedreid_pl.reporting.run_folder import read_timings
from fedreid_pl.reporting.summary_file import read_summary

PAGE = Path(__file__).parent.parent / "docs" / "method_costs.md"
ROUNDS = 4
NO_ROUNDS = ("local", "centralized")  # they train other clients, or with other steps
COMPARED = [name for name in METHODS if name not in (BASELINE, *NO_ROUNDS)]
SETTING = (
    "data=minireid_v1",  # whose test sets are small: evaluations are no part of what is measured
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
    """Seconds of training in a round, MB of the process at its peak."""

    seconds: float
    memory: float


def measured(method: str, steps: int) -> Cost:
    """One run of a method.

    Raises:
        SystemExit: if it fails, with the end of what it printed.
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
    """`fedreid-pl` whose seconds are those of this process on a processor: other work on the machine is not counted."""
    costs.time = SimpleNamespace(perf_counter=time.process_time)  # type: ignore[attr-defined]
    run_command(words, log)


def in_turn(methods: Sequence[str], repeats: int, steps: int) -> dict[str, list[tuple[Cost, Cost]]]:
    """By method: pairs of FedPav's cost and its own."""
    found: dict[str, list[tuple[Cost, Cost]]] = {name: [] for name in methods}
    for turn in range(repeats):
        for name in methods:
            found[name].append((measured(BASELINE, steps), measured(name, steps)))
            base, own = found[name][-1]
            print(f"{turn + 1} of {repeats}: {name} {own.seconds / base.seconds:.2f} of the time", file=sys.stderr)
    return found


def table(found: dict[str, list[tuple[Cost, Cost]]], steps: int) -> str:
    """Markdown: ratios with their range, and absolute values."""
    lines = [
        "| method | time of a step / FedPav's | ms a step | peak memory / FedPav's | MB |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, pairs in found.items():
        times = [own.seconds / base.seconds for base, own in pairs]
        sizes = [own.memory / base.memory for base, own in pairs]
        ms = statistics.median(1000 * own.seconds / (2 * steps) for _, own in pairs)
        memory = statistics.median(own.memory for _, own in pairs)
        spread = f" ({min(times):.2f} to {max(times):.2f})" if len(times) > 1 else ""
        lines.append(
            f"| `{name}` | {statistics.median(times):.2f}{spread} | {ms:.0f} | {statistics.median(sizes):.2f} | "
            f"{memory:.0f} |"
        )
    return "\n".join(lines)


def page(found: dict[str, list[tuple[Cost, Cost]]], repeats: int, steps: int) -> str:
    """docs/method_costs.md."""
    command = f"python benchmarks/method_costs.py --repeats {repeats} --steps {steps} --page"
    return f"""# What a method's training step costs

<!-- written by `{command}` -->

Two clients of MiniReID (synthetic, version 1: mini-prid2011, mini-viper) train ResNet-18 at 128 x 64 pixels, in
batches of 32, with one thread. {repeats} times a run of FedPav and a run of the method follow each other; ratios are
of such pairs.
{machine()}.

    {command}

{table(found, steps)}

Seconds are processor time, so other work on the machine counts little. They hold all of a client's turn: its steps,
and what the method computes before and after them. Memory is the peak of the whole process, of which the program
without a network takes most.
"""


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument(
        "--methods", nargs="+", default=[name for name in METHODS if name not in (BASELINE, *NO_ROUNDS)]
    )
    parser.add_argument("--page", action="store_true", help="write docs/method_costs.md")
    arguments = parser.parse_args()
    found = in_turn(arguments.methods, arguments.repeats, arguments.steps)
    print(table(found, arguments.steps))
    if arguments.page:
        PAGE.write_text(page(found, arguments.repeats, arguments.steps))
    return 0


if __name__ == "__main__":
    sys.exit(main())
