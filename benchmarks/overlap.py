"""Comparing the files of a folder of MSMT17's size by their bytes: the first time, and with the hashes that were kept.

    python benchmarks/overlap.py [--repeats 3] [--folder FOLDER]

Makes 126,441 small files in MSMT17's layout, each with its own name as its content (in a temporary folder, or once in
FOLDER), and looks for pictures in two places, in new processes: seconds from the table of samples to the findings,
without the time to start Python and to read the table. Each repeat is a pair: without kept hashes, then with them.
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
    """Gives every picture its own content, written an hour ago: what has changed just now is not kept."""
    hour_ago = time.time() - 3600
    for folder, _, names in os.walk(root):
        for name in names if Path(folder) != root else ():
            path = Path(folder) / name
            path.write_text(f"{path.parent.parent.name} {name}")
            os.utime(path, (hour_ago, hour_ago))


def compare(root: Path, cache: Path) -> float:
    """Seconds of one comparison in a process of its own."""
    command = [sys.executable, "-c", READ, str(root), str(cache)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert found["found"] == 0, found
    return found["seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path, help="file for the figures, besides the screen")
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
