"""Runs experiments in two processes and reads the report of each (ddp_probe.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def in_two_processes(folder: Path, experiments: dict[str, list[str]], seconds: float = 600) -> str:
    """Trains experiments, given by their settings, one after the other; returns the stderr output.

    The reports are in `folder`, see `reports_of`.
    """
    (folder / "experiments.json").write_text(json.dumps(experiments))
    script = Path(__file__).with_name("ddp_probe.py")
    done = subprocess.run(
        [sys.executable, str(script), str(folder), str(folder / "experiments.json")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def reports_of(folder: Path) -> list[dict[str, Any]]:
    """Returns the reports of both processes by experiment."""
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]
