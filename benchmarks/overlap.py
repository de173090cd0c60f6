"""Measures the search for equal files in a folder of MSMT17's size, without and with saved hashes.

    python benchmarks/overlap.py [--repeats 3] [--folder FOLDER]

Creates 126,441 small files in MSMT17's layout, each with its name as its content (in a temporary folder, or once in
FOLDER), and searches for equal images in new processes. Measures the seconds from the table of samples to the findings,
without the start of Python and the reading of the table. Each repetition is a pair: without saved hashes, then with.
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
from indexing import make_tree

READ = """
import json, sys, time
from pathlib import Path
from fedreid_pl.config import DataConfig
from fedreid_pl.data.federated import ClientData, FederatedData
from fedreid_pl.data.overlap import byte_keys, find_overlaps
from fedreid_pl.data.locating import read_dataset
config = DataConfig(layout="msmt17", cache_dir=sys.argv[2])
table = read_dataset(config, Path(sys.argv[1]), "MSMT17")
data = FederatedData({"MSMT17": ClientData("MSMT17", table.split("train"), ())}, {}, datasets=(table,))
start = time.perf_counter()
found = find_overlaps(data, byte_keys(config, data.datasets))
print(json.dumps({"seconds": time.perf_counter() - start, "found": len(found)}))
"""


def fill(root: Path) -> None:
    """Writes different content to every file, with old modification times, because recent files are not cached."""
    hour_ago = time.time() - 3600
    for folder, _, names in os.walk(root):
        for name in names if Path(folder) != root else ():
            path = Path(folder) / name
            path.write_text(f"{path.parent.parent.name} {name}")
            os.utime(path, (hour_ago, hour_ago))


def compare(root: Path, cache: Path) -> float:
    """Returns the seconds of one search in a separate process."""
    command = [sys.executable, "-c", READ, str(root), str(cache)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert found["found"] == 0, found
    return found["seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path, help="JSON file for the figures; they are always printed")
    options = parser.parse_args()
    first, known = [], []
    with tempfile.TemporaryDirectory() as temporary:
        root = (options.folder or Path(temporary)) / "MSMT17-filled"
        if not root.exists():
            fill(make_tree(root))
        for _ in range(options.repeats):
            shutil.rmtree(Path(temporary) / "cache", ignore_errors=True)
            first.append(compare(root, Path(temporary) / "cache"))
            known.append(compare(root, Path(temporary) / "cache"))
    report = Report("the same picture in two places, a folder of MSMT17's size")
    report.add("126,441 files, hashed", first, unit="s")
    report.add("126,441 files, known by size and time", known, "at most 2 s", "s")
    report.finish(options.json)


if __name__ == "__main__":
    main()
