"""Tests candidates for MiniReID's start weights by the rule in docs/decisions.md, in the order given there.

    python benchmarks/minireid_start.py [--out FOLDER] [--lessons things shapes ...] [--jobs 2]

For each candidate the script makes the start weights, trains `local` and `centralized` from them with seed 0, and reads
the scores of the frozen start from the evaluation before the first round of `fedpav`. It trains `local` from random
weights once. It prints a table and the violated conditions, and stops at the first candidate without any. Complete runs
are not repeated.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import fmean

from fedreid_pl.data.minireid import DOMAINS
from fedreid_pl.data.minireid.lessons import LESSONS
from fedreid_pl.start import ensure_start

MIDDLE = ("mini-market1501", "mini-cuhk03np", "mini-prid2011", "mini-cuhk01")
PRETRAINED = ("optim.lr_backbone=0.005", "optim.lr_head=0.05")
FROM_RANDOM = ("model.weights=none", "optim.lr_backbone=0.02", "optim.lr_head=0.02")
WORDS = ("data=minireid", "evaluate_every=30", "logger=none", "seed=0", "data.public=null")


def train(runs: dict[Path, tuple[str, ...]], jobs: int) -> None:
    """Trains all incomplete runs, `jobs` at a time."""
    waiting = [(folder, words) for folder, words in runs.items() if not complete(folder)]
    while waiting:
        group, waiting = waiting[:jobs], waiting[jobs:]
        processes = []
        for folder, words in group:
            folder.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, "-m", "fedreid_pl", "train", *words, *WORDS, f"output_dir={folder}"]
            with open(folder / "train.log", "w") as log:
                processes.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT))
        if any(process.wait() for process in processes):
            sys.exit(f"error: a run failed, see train.log in {', '.join(str(folder) for folder, _ in group)}")


def complete(folder: Path) -> bool:
    """Returns whether a run is complete."""
    return (folder / "summary.json").exists() and json.loads((folder / "summary.json").read_text())["complete"]


def scores(folder: Path, kind: str) -> dict[str, float]:
    """Returns Rank-1 in percent by domain: `last` of the local models or `untrained` of the global model."""
    summary = json.loads((folder / "summary.json").read_text())
    section = summary["global" if kind == "untrained" else "local"]
    return {name: 100 * section[name]["rank1"][kind] for name in DOMAINS}


def verdict(start: dict, alone: dict, central: dict, scratch: dict) -> list[str]:
    """Returns the violated conditions of the rule in order; empty if the candidate fits."""
    broken = [f"(i) start above half of centralized on {name}" for name in DOMAINS if start[name] > central[name] / 2]
    gain = fmean(alone.values()) - fmean(scratch.values())
    if gain < 5:
        broken.append(f"(ii) standalone from it is {gain:+.1f} points from standalone from random weights")
    for name in MIDDLE:
        if not central[name] > alone[name] > start[name]:
            broken.append(f"(iv) order on {name}")
    for what, found in (("standalone", alone), ("centralized", central)):
        broken += [f"(iv) {what} {found[name]:.1f} on {name}" for name in DOMAINS if not 10 <= found[name] <= 97]
    return broken


def main() -> None:
    """Prints a table and the result for each candidate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lessons", nargs="+", default=list(LESSONS), choices=list(LESSONS))
    parser.add_argument("--out", type=Path, default=Path("runs/minireid/start"))
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    random = options.out / "random" / "local"
    for name in options.lessons:
        weights = f"model.weights={ensure_start(LESSONS[name])}"
        local, central, frozen = (options.out / name / run for run in ("local", "centralized", "frozen"))
        train(
            {
                local: ("exp=local", weights, *PRETRAINED),
                central: ("exp=centralized", weights, *PRETRAINED),
                random: ("exp=local", *FROM_RANDOM),
                frozen: ("exp=fedpav", weights, *PRETRAINED, "rounds=1"),
            },
            options.jobs,
        )
        columns = [scores(frozen, "untrained"), scores(local, "last"), scores(central, "last"), scores(random, "last")]
        print(f"\n{name}\n| domain (synthetic) | start | standalone | centralized | standalone from random weights |")
        print("|---|---|---|---|---|")
        for domain in DOMAINS:
            print(f"| {domain} | {' | '.join(f'{column[domain]:.1f}' for column in columns)} |")
        print(f"| mean | {' | '.join(f'{fmean(column.values()):.1f}' for column in columns)} |", flush=True)
        broken = verdict(*columns)
        print("\n".join(broken) if broken else f"{name} fits the rule", flush=True)
        if not broken:
            return
    sys.exit("error: no candidate fits")


if __name__ == "__main__":
    main()
