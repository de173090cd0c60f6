"""What 1,000 clients cost when ten train in a round, against a federation of those ten alone.

    python benchmarks/many_clients.py [--clients 1000] [--present 10] [--rounds 20] [--repeats 3]

Every client has eight persons with eight images of noise (64 x 32), dealt out by identity from one generated dataset:
a client's work and the one test set are the same in both federations. Each run is a process of its own, with the small
model and no image cached; its peak resident size and its seconds per round, evaluation left out, are those of its
summary.json. Runs of the two sizes alternate.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from figures import Report

PERSONS, IMAGES, CAMERAS = 8, 8, 2
"""Of one client: persons, and images of each."""


def write_dataset(folder: Path, clients: int) -> None:
    """Training images of all clients and a small test set, in Market-1501's layout."""
    draws = np.random.default_rng(0)

    def write(split: str, person: int, camera: int, number: int) -> None:
        pixels = draws.integers(0, 256, (64, 32, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=50)
        (folder / split / f"{person:05d}_c{camera}s1_{number:06d}_00.jpg").write_bytes(buffer.getvalue())

    for split in ("bounding_box_train", "query", "bounding_box_test"):
        (folder / split).mkdir(parents=True)
    for person in range(1, clients * PERSONS + 1):
        for number in range(IMAGES):
            write("bounding_box_train", person, 1 + number % CAMERAS, number)
    for person in range(90_001, 90_021):
        write("query", person, 1, 0)
        write("bounding_box_test", person, 2, 0)


def run(root: Path, clients: int, present: int, rounds: int) -> dict[str, Any]:
    """One federation in a process of its own; its summary's costs."""
    with tempfile.TemporaryDirectory() as folder:
        words = [
            "exp=fedpav",
            "data=market_layout",
            f"data.root={root}",
            f"data.datasets=[people-{clients}]",
            "data.scenario=by_identity",
            f"data.parts={clients}",
            *("data.height=64", "data.width=32", "data.pad=3", "data.cache=none"),
            *("model.name=small", "model.weights=none", "logger=csv", "trainer.accelerator=cpu"),
            *(f"clients_per_round={present}", f"rounds={rounds}", f"evaluate_every={rounds}"),
            f"output_dir={folder}/run",
        ]
        done = subprocess.run(
            [sys.executable, "-m", "fedreid_pl", "train", *words], capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"the run with {clients} clients failed:\n{done.stderr}")
        return json.loads(Path(folder, "run", "summary.json").read_text(encoding="utf-8"))["costs"]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--present", type=int, default=10, help="clients in a round; the size of the small federation")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file for the figures, besides the screen")
    args = parser.parse_args()

    report = Report("1,000 clients" if args.clients == 1000 else f"{args.clients} clients")
    memory: list[tuple[float, float]] = []
    times: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for clients in (args.present, args.clients):
            write_dataset(root / f"people-{clients}", clients)
        for repeat in range(args.repeats):
            order = (args.present, args.clients) if repeat % 2 else (args.clients, args.present)
            costs = {clients: run(root, clients, args.present, args.rounds) for clients in order}
            few, many = costs[args.present], costs[args.clients]
            memory.append((many["peak_memory_bytes"], few["peak_memory_bytes"]))
            times.append(
                tuple(  # type: ignore[arg-type]
                    (cost["seconds"]["total"] - cost["seconds"]["evaluate"]) / args.rounds for cost in (many, few)
                )
            )
    who = f"{args.clients} clients / {args.present}, {args.present} in a round"
    report.note(
        f"peak memory: median {np.median([a for a, _ in memory]) / 2**20:.0f} MiB with {args.clients} clients, "
        f"{np.median([b for _, b in memory]) / 2**20:.0f} MiB with {args.present}"
    )
    report.note(
        f"seconds per round: median {np.median([a for a, _ in times]):.3f} with {args.clients} clients, "
        f"{np.median([b for _, b in times]):.3f} with {args.present}"
    )
    report.add(f"peak memory, {who}", [many / few for many, few in memory], "at most 1.3")
    report.add(f"time per round, {who}", [many / few for many, few in times], "1 within noise")
    report.finish(args.json)


if __name__ == "__main__":
    main()
