"""Compares a federation of 1,000 clients, ten of which train in a round, with a federation of ten clients.

    python benchmarks/many_clients.py [--clients 1000] [--present 10] [--rounds 20] [--repeats 3]
    python benchmarks/many_clients.py --clients 10000 --present 20 --persons 2 --words engine=ray engine.slots=2

Every client has eight persons with eight noise images each (64 x 32), split by identity from one generated dataset, so
that a client's work and the test set are equal in both federations. Each run is a separate process with the small model
and without cached images. A round's seconds are the median over all rounds except the first and the last, which
evaluates. Runs of the two sizes alternate.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from figures import Report
from PIL import Image
from processes import Seconds, seconds

from fedreid_pl.config import compose
from fedreid_pl.data.scenarios import load_federated_data
from fedreid_pl.experiment import train
from fedreid_pl.federation.memory import peak_memory
from fedreid_pl.federation.server.loop import FederationLoop

PERSONS, IMAGES, CAMERAS = 8, 8, 2
"""Persons of a client, and images of each person."""


def write_dataset(folder: Path, clients: int, persons: int) -> None:
    """Writes training images of all clients and a small test set in Market-1501's layout."""
    draws = np.random.default_rng(0)

    def write(split: str, person: int, camera: int, number: int) -> None:
        pixels = draws.integers(0, 256, (64, 32, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=50)
        (folder / split / f"{person:05d}_c{camera}s1_{number:06d}_00.jpg").write_bytes(buffer.getvalue())

    for split in ("bounding_box_train", "query", "bounding_box_test"):
        (folder / split).mkdir(parents=True)
    for person in range(1, clients * persons + 1):
        for number in range(IMAGES):
            write("bounding_box_train", person, 1 + number % CAMERAS, number)
    for person in range(90_001, 90_021):
        write("query", person, 1, 0)
        write("bounding_box_test", person, 2, 0)


class Costs(NamedTuple):
    """Measurements of one federation.

    Args:
        peak: peak memory of the process and of the slots of `engine=ray`, in bytes.
        clock, processor: wall-clock and processor seconds of a round.
        listing: seconds to read the lists of all clients.
    """

    peak: float
    clock: float
    processor: float
    listing: float


def federation(root: Path, clients: int, present: int, rounds: int, more: list[str]) -> Costs:
    """Runs a federation in this process; a round's seconds are the median without the first and the evaluated round."""
    times: list[Seconds] = []
    run_round = FederationLoop.run_round

    def timed(self: FederationLoop) -> None:
        times.append(seconds(run_round, self))

    FederationLoop.run_round = timed  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        words = [
            *("exp=fedpav", "data=market_layout", f"data.root={root}", f"data.datasets=[people-{clients}]"),
            *("data.scenario=by_identity", f"data.parts={clients}"),
            *("data.height=64", "data.width=32", "data.pad=3", "data.cache=none"),
            *("model.name=small", "model.weights=none", "logger=csv", "trainer.accelerator=cpu"),
            *(f"clients_per_round={present}", f"rounds={rounds}", f"evaluate_every={rounds}"),
            f"output_dir={folder}/run",
        ]
        config = compose([*words, *more])
        start = time.perf_counter()
        load_federated_data(config.data)
        listing = time.perf_counter() - start
        loop = train(config, Path(folder) / "run")
    clock, processor = (statistics.median(column) for column in zip(*times[1:-1], strict=True))
    slots = [
        row for row in loop.context.costs.timings.records if row.metric == "peak_memory_bytes" and "slot" in row.name
    ]
    largest = {row.name: max(other.value for other in slots if other.name == row.name) for row in slots}
    return Costs(peak_memory() + sum(largest.values()), clock, processor, listing)


def run(root: Path, clients: int, present: int, rounds: int, more: list[str]) -> Costs:
    """Runs `federation` in a separate process."""
    command = [sys.executable, __file__, "--child", str(root), "--clients", str(clients), "--present", str(present)]
    done = subprocess.run(
        [*command, "--rounds", str(rounds), "--words", *more], stdout=subprocess.PIPE, text=True, check=True
    )
    return Costs(*json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measures and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--present", type=int, default=10, help="clients in a round; the size of the small federation")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--persons", type=int, default=PERSONS, help="persons of a client")
    parser.add_argument("--words", nargs="*", default=[], help="additional settings of every run, such as engine=ray")
    parser.add_argument("--json", type=Path, help="JSON file for the figures; they are always printed")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(federation(args.child, args.clients, args.present, args.rounds, args.words)))
        return

    report = Report(f"{args.clients} clients")
    pairs: list[tuple[Costs, Costs]] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for clients in (args.present, args.clients):
            write_dataset(root / f"people-{clients}", clients, args.persons)
        for repeat in range(args.repeats):
            order = (args.present, args.clients) if repeat % 2 else (args.clients, args.present)
            costs = {clients: run(root, clients, args.present, args.rounds, args.words) for clients in order}
            pairs.append((costs[args.clients], costs[args.present]))
    for clients, column in zip((args.clients, args.present), zip(*pairs, strict=True), strict=True):
        report.add(f"peak memory with {clients} clients", [one.peak / 2**20 for one in column], unit="MiB")
        report.add(f"listing of {clients} clients", [one.listing for one in column], "at most 5 s", unit="s")
        report.add(f"round with {clients} clients", [one.clock for one in column], unit="s")
    who = f"{args.clients} clients / {args.present}"
    report.add(f"peak memory, {who}", [many.peak / few.peak for many, few in pairs], "at most 1.3")
    report.add(f"round, {who}", [many.clock / few.clock for many, few in pairs], "1 within noise")
    report.add(f"round, processor seconds, {who}", [many.processor / few.processor for many, few in pairs])
    report.finish(args.json)


if __name__ == "__main__":
    main()
