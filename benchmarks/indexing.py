"""Measures the reading of a folder of MSMT17's size, without and with an index.

    python benchmarks/indexing.py [--repeats 5] [--folder FOLDER]

Creates 126,441 empty files of 4,101 persons in MSMT17's layout with its four lists (in a temporary folder, or once in
FOLDER) and reads them in new processes. Measures the seconds from the folder to the table of samples, without the start
of Python, and the peak memory of the process. Each repetition is a pair: without an index, then with it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import Report

COUNTS = {"train": (1_041, 32_621), "query": (3_060, 11_659), "gallery": (3_060, 82_161)}

READ = """
import json, sys, time
from pathlib import Path
from fedreid_pl.config import DataConfig
from fedreid_pl.data.locating import read_dataset
root, cache = Path(sys.argv[1]), sys.argv[2]
start = time.perf_counter()
table = read_dataset(DataConfig(layout="msmt17", cache_dir=cache), root, "MSMT17")
seconds = time.perf_counter() - start
lines = Path("/proc/self/status").read_text().splitlines()  # ru_maxrss would count the process that started this one
memory = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
print(json.dumps({"images": len(table), "seconds": seconds, "memory": memory}))
"""


def make_tree(root: Path) -> Path:
    """Creates empty files and lists with the counts of MSMT17."""
    lists: dict[str, list[str]] = {"train": [], "val": [], "query": [], "gallery": []}
    for split, (persons, images) in COUNTS.items():
        folder = "train" if split == "train" else "test"
        for number in range(images):
            person, index = number % persons, number // persons
            shift = 500 * (split == "gallery")
            name = f"{person:04d}/{person:04d}_{index + shift:03d}_{1 + number % 15:02d}_0303morning_0015_{index}.jpg"
            path = root / folder / name
            if index == 0:
                path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            lists["val" if split == "train" and number % 14 == 13 else split].append(f"{name} {person}\n")
    for name, lines in lists.items():
        (root / f"list_{name}.txt").write_text("".join(lines))
    hour_ago = time.time() - 3600  # recently changed files are not indexed
    for folder, _, files in os.walk(root):
        os.utime(folder, (hour_ago, hour_ago))
        for file in files if Path(folder) == root else ():
            os.utime(f"{folder}/{file}", (hour_ago, hour_ago))
    return root


def read(root: Path, cache: Path) -> dict[str, float]:
    """Reads the folder in a separate process."""
    command = [sys.executable, "-c", READ, str(root), str(cache)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(root: Path, cache: Path, repeats: int) -> dict[str, list[dict[str, float]]]:
    """Returns pairs of readings without and with an index."""
    found: dict[str, list[dict[str, float]]] = {"first": [], "indexed": []}
    for _ in range(repeats):
        shutil.rmtree(cache, ignore_errors=True)
        found["first"].append(read(root, cache))
        found["indexed"].append(read(root, cache))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path, help="JSON file for the figures; they are always printed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = (options.folder or Path(temporary)) / "MSMT17"
        if not root.exists():
            make_tree(root)
        found = measure(root, Path(temporary) / "cache", options.repeats)
    report = Report("a folder of MSMT17's size")
    for name, key, bound in (("read", "first", "at most 5 s"), ("from its index", "indexed", "at most 0.5 s")):
        report.add(f"126,441 files, {name}", [run["seconds"] for run in found[key]], bound, "s")
        report.add("memory of the process", [run["memory"] / 2**20 for run in found[key]], "at most 300 MB", "MiB")
    report.finish(options.json)


if __name__ == "__main__":
    main()
