"""Leave-one-domain-out over four domains of MiniReID with all methods: trains missing runs, one CSV row per run.

    python benchmarks/leave_one_out.py [--rounds 20] [--jobs 2] [--seeds 3] [--methods NAME ...] [--targets NAME ...]
    python benchmarks/leave_one_out.py --best 4 --seeds 5     five seeds for the four best methods and the two baselines
    python benchmarks/leave_one_out.py --table                prints the tables of docs/which_method.md
    python benchmarks/leave_one_out.py --page                 writes them into docs/which_method.md

Synthetic data. A run trains on three domains and is tested on the unseen fourth (`data.leave_out`). A tenth of each
client's training persons is held out to select a round ("validated"). A run computes with one thread. Runs with a row
in the CSV are not repeated after an interruption, and the folders of finished runs are deleted.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import shutil
import sys
import time
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported

from leave_one_out_tables import BASELINE, CONTROL, ROWS, Row, best_methods, read_rows, tables, write_page

import fedreid_pl.commands.train
import fedreid_pl.experiment  # noqa: F401  imported once for all forks
from fedreid_pl.cli import main as run_cli
from fedreid_pl.config import available, load_config
from fedreid_pl.reporting.run_folder import read_history
from fedreid_pl.reporting.summary_file import read_summary

FORK = multiprocessing.get_context("fork")

TARGETS = ("mini-market1501", "mini-cuhk03np", "mini-prid2011", "mini-cuhk01")
"""The four domains: 1294, 737, 374 and 194 training images. They were chosen before any result was known."""

METHODS = (
    *(BASELINE, CONTROL, "local", "centralized"),
    *("fedpav_rw", "fedprox", "scaffold", "moon"),
    *("mixstyle", "crossstyle", "style_bank", "dacs", "sscu", "snr"),
    *("ditto", "fedbn", "fedper", "lg_fedavg", "fedbabu", "fedreid_decentralised", "dual_norm"),
)
"""Every method that needs neither a public set nor many clients; baselines first."""

RESULTS = Path(__file__).parent.parent / "results" / "leave_one_out.csv"
WORK = Path("runs/leave_one_out")
EVALUATIONS = 3
"""Number of evaluations of a run, evenly spaced, including the last round."""


@dataclass(frozen=True)
class Run:
    """One training run of the plan."""

    target: str
    method: str
    seed: int
    rounds: int

    @property
    def key(self) -> tuple[str, str, int, int]:
        """Returns the key of the run's row in the CSV."""
        return self.target, self.method, self.seed, self.rounds

    @property
    def folder(self) -> Path:
        """Returns the run's folder."""
        return WORK / f"{self.target}-{self.method}-{self.seed}-{self.rounds}"

    def command(self) -> list[str]:
        """Returns the arguments of `fedreid-pl`."""
        words = [
            f"exp={self.method}",
            "data=minireid",
            f"data.datasets=[{','.join(TARGETS)}]",
            f"data.leave_out={self.target}",
            "data.public=null",
            "data.val_ids=0.1",
            f"seed={self.seed}",
            f"rounds={self.rounds}",
            f"evaluate_every={max(1, self.rounds // EVALUATIONS)}",
            "report.images=false",
            "logger=none",
            "trainer.accelerator=cpu",
            f"output_dir={self.folder}",
        ]
        return ["train", *words]


def started(words: Sequence[str], log: Path) -> BaseProcess:
    """Runs `fedreid-pl` in a fork of this process, which has already imported the slow modules."""
    log.parent.mkdir(parents=True, exist_ok=True)
    process = FORK.Process(target=run_command, args=(words, log))
    process.start()
    return process


def run_command(words: Sequence[str], log: Path) -> None:
    """Runs `fedreid-pl` with its arguments and writes the output to a file."""
    with open(log, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os._exit(_main(words))


def _main(words: Sequence[str]) -> int:
    try:
        return run_cli(list(words))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush(), sys.stderr.flush()


def planned(arguments: argparse.Namespace, rows: Sequence[Row]) -> list[Run]:
    """Returns the requested runs without finished ones, seed by seed, so that early results are comparable."""
    methods = list(arguments.methods or METHODS)
    if arguments.best:
        chosen = best_methods(rows, arguments.best, arguments.rounds)
        methods = [BASELINE, CONTROL, *chosen]
        print(f"the best {arguments.best}: {', '.join(chosen)}", file=sys.stderr)
    known = available("exp")
    for name in methods:
        if name not in known:
            print(f"{name}: no such experiment, skipped", file=sys.stderr)
    done = {(row.target, row.method, row.seed, row.rounds) for row in rows}
    every = [
        Run(target, method, seed, arguments.rounds)
        for seed in range(arguments.seeds)
        for method in methods
        if method in known
        for target in arguments.targets or TARGETS
    ]
    return [run for run in every if run.key not in done]


def measured(run: Run) -> Row:
    """Returns the row of a finished run."""
    summary = read_summary(run.folder) or {}
    history = read_history(run.folder, load_config(run.folder / "config.yaml"))
    curves = {
        metric: {round: 100 * value for round, value in history.series("unseen", run.target, metric).items() if round}
        for metric in ("rank1", "mAP")
    }
    chosen = summary["best_round"] if summary["best_by"] == "validation" else None
    last = {metric: curve[max(curve)] for metric, curve in curves.items()}
    sections = {section: summary.get(section, {}).get("mean", {}) for section in ("global", "local")}
    costs = summary["costs"]

    def score(section: str, metric: str) -> float | None:
        found = sections[section].get(metric)
        return None if found is None else 100 * found["last"]

    return Row(
        *run.key,
        rank1_last=last["rank1"],
        mAP_last=last["mAP"],
        validated_round=chosen,
        rank1_validated=None if chosen is None else curves["rank1"][chosen],
        mAP_validated=None if chosen is None else curves["mAP"][chosen],
        rank1_best_on_target=max(curves["rank1"].values()),
        mAP_best_on_target=max(curves["mAP"].values()),
        source_rank1=score("global", "rank1"),
        source_mAP=score("global", "mAP"),
        local_rank1=score("local", "rank1"),
        local_mAP=score("local", "mAP"),
        seconds=costs["seconds"]["fit"],
        bytes_up=costs["bytes_up"],
        bytes_down=costs["bytes_down"],
        peak_memory_bytes=costs["peak_memory_bytes"],
    )


def append(row: Row, path: Path) -> None:
    """Appends one line to the CSV, with the header before the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with open(path, "a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(ROWS)
        writer.writerow(row.written())


def train(runs: Iterable[Run], jobs: int, path: Path) -> int:
    """Trains at most `jobs` runs at a time, each with one thread, and returns the number of failed runs."""
    waiting, children, failed = list(runs), {}, 0
    total, begin = len(waiting), time.monotonic()
    try:
        while waiting or children:
            while waiting and len(children) < jobs:
                run = waiting.pop(0)
                children[run] = started(run.command(), run.folder / "train.log")
            for run, child in [*children.items()]:
                if child.is_alive():
                    continue
                del children[run]
                if child.exitcode:
                    failed += 1
                    lines = (run.folder / "train.log").read_text(errors="replace").strip().splitlines()
                    print(f"{run.folder} failed: {lines[-1] if lines else 'no output'}", file=sys.stderr)
                    continue
                append(measured(run), path)
                shutil.rmtree(run.folder)
                done = total - len(waiting) - len(children)
                left = (time.monotonic() - begin) / done * (total - done)
                print(f"{done} of {total}: {' '.join(map(str, run.key))}; {left / 60:.0f} min left", file=sys.stderr)
            time.sleep(0.2)
    finally:
        for child in children.values():
            child.terminate()
        for child in children.values():
            child.join()
    return failed


def main(words: Sequence[str] | None = None) -> int:
    """Returns the exit code: 1 if a run failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ...")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--targets", nargs="+", choices=TARGETS)
    parser.add_argument("--best", type=int, default=0, help="train only the best methods, with FedPav and the control")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print the tables and train nothing")
    parser.add_argument("--page", action="store_true", help="write the tables into docs/which_method.md")
    arguments = parser.parse_args(words)
    rows = read_rows(arguments.results)
    if arguments.table or arguments.page:
        if arguments.page:
            write_page(rows)
        else:
            print(tables(rows))
        return 0
    runs = planned(arguments, rows)
    print(f"{len(runs)} runs to train", file=sys.stderr)
    return int(train(runs, arguments.jobs, arguments.results) > 0)


if __name__ == "__main__":
    sys.exit(main())
