"""Runs all benchmarks one after the other and writes one table of all ratios.

    python benchmarks [--quick] [--only ranking round] [--out FOLDER]

Each script of the list below runs in a separate process and returns its figures as JSON. The table is printed and
saved with the figures in FOLDER (`runs/bench`): `table.md` and one JSON file per script. `--quick` uses few
repetitions, to check that all scripts run. A failing script does not stop the others; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from figures import Figure, machine


class Benchmark(NamedTuple):
    """A script with its arguments, and the arguments of a quick run."""

    name: str
    words: tuple[str, ...]
    quick: tuple[str, ...]


BENCHMARKS = (
    Benchmark("turn", ("turn.py",), ("--repeats", "2")),
    Benchmark("round", ("round.py",), ("--repeats", "2")),
    Benchmark("training", ("training.py",), ("--repeats", "1")),
    Benchmark("many_clients", ("many_clients.py",), ("--repeats", "1", "--clients", "100", "--rounds", "3")),
    Benchmark("ray_rounds", ("ray_rounds.py",), ("--repeats", "1", "--rounds", "2")),
    Benchmark("ranking", ("ranking.py", "--single-shot"), ("--repeats", "2", "--size", "small")),
    Benchmark("ranking_msmt17", ("ranking.py", "--size", "msmt17", "--repeats", "2"), ("--size", "small")),
    Benchmark("indexing", ("indexing.py",), ("--repeats", "1")),
    Benchmark("overlap", ("overlap.py",), ("--repeats", "1")),
    Benchmark("embedding", ("embedding.py",), ("--repeats", "1", "--images", "64")),
    Benchmark("searching", ("searching.py",), ("--repeats", "3", "--rows", "20000")),
    Benchmark("reranking", ("reranking.py",), ("--size", "small")),
    Benchmark("reranking_msmt17", ("reranking.py", "--size", "msmt17", "--no-dense"), ("--size", "small")),
    Benchmark("image_cache", ("image_cache.py",), ("--repeats", "2", "--images", "128")),
)


def run(benchmark: Benchmark, quick: bool, folder: Path) -> dict[str, Any] | None:
    """Returns the figures of one script, or `None` if it failed."""
    here = Path(__file__).resolve().parent
    file = folder / f"{benchmark.name}.json"
    file.unlink(missing_ok=True)
    script, *words = benchmark.words
    command = [sys.executable, str(here / script), *words, *(benchmark.quick if quick else ()), "--json", str(file)]
    print(f"\n{benchmark.name}", flush=True)
    if subprocess.run(command, check=False).returncode or not file.exists():
        print(f"error: {benchmark.name} failed", file=sys.stderr)
        return None
    return json.loads(file.read_text(encoding="utf-8"))


def table(reports: list[dict[str, Any]]) -> str:
    """Returns all figures as a Markdown table, with the machine below."""
    lines = ["| what | median | min | max | times | target |", "|---|---|---|---|---|---|"]
    for report in reports:
        for entry in report["figures"]:
            lines.append("| " + " | ".join(Figure(**entry).cells()) + " |")
    machines = dict.fromkeys(report["machine"] for report in reports)
    return "\n".join([*lines, "", *(machines or [machine()])])


def main() -> int:
    """Runs the benchmarks, prints and writes the table, and returns the exit code."""
    names = [benchmark.name for benchmark in BENCHMARKS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    reports = [run(benchmark, args.quick, args.out) for benchmark in BENCHMARKS if benchmark.name in args.only]
    text = table([report for report in reports if report is not None])
    (args.out / "table.md").write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}")
    return int(None in reports)


if __name__ == "__main__":
    sys.exit(main())
