"""`make silos-demo` gives the same bits as a run in one process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "silos_demo.py"


@pytest.mark.system
def test_the_demonstration_ends_with_equal_bits(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "rounds=2", f"folder={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "global model: equal bits" in done.stdout and "metrics.csv: equal bytes" in done.stdout
    for party in ("hospital-a", "hospital-b", "campus-c"):
        assert (tmp_path / party / "silo" / "audit.jsonl").read_text().count('"event":"update"') >= 2
