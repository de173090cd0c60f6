"""Measures the time to write and to open a large report, and its size.

    python benchmarks/report.py [--every 1] [--keep FOLDER]

Nine clients, 300 rounds, five experiments, three seeds: run folders with random numbers, written by the code of real
runs, with ranked lists of 64 x 128 pixels. Prints the time of `fedreid-pl report` over all runs in a separate process,
the size of the file and, if Chromium is installed, the time until its load event. As a reference for the machine's
speed, it also times reading the fifteen metrics.csv line by line, which every report requires.
"""

from __future__ import annotations

import argparse
import csv
import io
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import browser
from made_runs import curves_of, history_of, write_run

from fedreid_pl.config import compose
from fedreid_pl.federation.server.history import History

EXPERIMENTS = ("local", "fedpav", "fedpav_kd", "fedpav_rw", "fedpav_kd_rw")
ROUNDS, SEEDS, QUERIES = 300, 3, 6


def large_history(tests: tuple[str, ...], level: float, federated: bool, every: int, draws: torch.Generator) -> History:
    """Returns a history with the size of a real run's."""
    noise = torch.rand(ROUNDS + 1, len(tests), 2, generator=draws).tolist()

    def score(section: str, round: int, test: str) -> float:
        index = tests.index(test)
        return (level + 0.02 * index) * (1 - 0.97**round) + 0.03 * noise[round][index][section == "local"]

    history = history_of(ROUNDS, tests, score, federated, every)
    for round in range(1, ROUNDS + 1):
        for index, test in enumerate(tests):
            history.add(round, "train", test, "loss", 6 * 0.99**round)
            history.add(round, "train", test, "accuracy", noise[round][index][0])
            history.add(round, "cost", test, "bytes_down", 1000)
            for section in ("global", "local") if federated else ("local",):
                if round % every == 0 or round == ROUNDS:
                    for metric in ("mAP_trapezoid", "mINP", "queries"):
                        history.add(round, section, test, metric, noise[round][index][1])
    return history


def large_inspection(folder: Path, tests: tuple[str, ...], draws: torch.Generator) -> dict[str, Any]:
    """Returns ranked lists with images, confusions and an embedding."""
    content = curves_of(tests, 0.5, {test: 0.6 for test in tests})
    (folder / "images").mkdir(parents=True)
    number = 0

    def image() -> dict[str, Any]:
        nonlocal number
        number += 1
        pixels = torch.randint(0, 256, (3, 24, 12), generator=draws).permute(1, 2, 0).to(torch.uint8).numpy()
        buffer = io.BytesIO()
        Image.fromarray(pixels).resize((64, 128), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
        (folder / "images" / f"{number}.jpg").write_bytes(buffer.getvalue())
        return {"identity": number, "camera": number % 6, "image": f"images/{number}.jpg"}

    for test in tests:
        ranked = [
            {
                "query": image(),
                "hardest": index < QUERIES // 2,
                "average_precision": 0.3,
                "gallery": [{**image(), "score": 0.9, "correct": place == 2} for place in range(10)],
            }
            for index in range(QUERIES)
        ]
        confusions = [{"identity": index, "mistaken_for": index + 1, "count": 3} for index in range(10)]
        content["tests"][test] = {**content["tests"][test], "ranked": ranked, "confusions": confusions}
    places = torch.rand(len(tests), 40, 4, generator=draws).tolist()
    points = [
        {"test": test, "identity": index // 3, "camera": index % 3, "before": place[:2], "after": place[2:]}
        for test, rows in zip(tests, places, strict=True)
        for index, place in enumerate(rows)
    ]
    content["embedding"] = {
        "method": "PCA",
        "model": "global",
        "explained": {"before": 0.4, "after": 0.3},
        "points": points,
    }
    return {**content, "images": True, "round": ROUNDS}


def write_study(folder: Path, every: int) -> list[Path]:
    """Writes the fifteen runs."""
    tests = tuple(compose([]).data.datasets)
    places = []
    for level, exp in enumerate(EXPERIMENTS):
        for seed in range(SEEDS):
            draws = torch.Generator().manual_seed(10 * level + seed)
            place = folder / exp / f"seed{seed}"
            kept = folder / "kept" / f"{exp}{seed}"
            inspection = large_inspection(kept, tests, draws)
            history = large_history(tests, 0.3 + 0.1 * level, exp != "local", every, draws)
            words = [f"exp={exp}", f"seed={seed}", f"rounds={ROUNDS}", f"evaluate_every={every}"]
            write_run(place, words, history, tests, inspection)
            (kept / "images").rename(place / "images")
            places.append(place)
    return places


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="rounds between evaluations")
    parser.add_argument("--keep", type=Path, help="folder for the runs and the report; default: a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        places = write_study(folder, options.every)
        start = time.perf_counter()
        rows = 0
        for place in places:
            with open(place / "metrics.csv", newline="") as file:
                rows += sum(1 for _ in csv.reader(file))
        reading = time.perf_counter() - start
        path = folder / "report.html"
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "fedreid_pl", "report", *map(str, places), f"out={path}"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        seconds = time.perf_counter() - start
        print(f"{len(places)} runs, {rows:,} numbers, made up; reading them with csv alone {reading:.1f} s")
        print(f"fedreid-pl report: {seconds:.1f} s, {seconds / reading:.1f} times that (at most 30 s)")
        print(f"size: {path.stat().st_size / 1e6:.2f} MB (at most 10 MB)")
        if reason := browser.missing():
            print(f"opening: not measured, {reason}")
            return
        with browser.browser(Path(temporary) / "profile") as tab:
            for width in (390, 1280):
                tab.open(path, width, "light")
                load = "const t = performance.getEntriesByType('navigation')[0]; return t.loadEventEnd"
                print(f"opening at {width} pixels: {tab.run(load) / 1000:.2f} s to the load event (at most 2 s)")


if __name__ == "__main__":
    main()
