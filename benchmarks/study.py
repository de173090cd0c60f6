"""Trains missing runs of the study of docs/results_v1.md and writes its tables into the document.

    python benchmarks/study.py [jobs=2] [KEY=VALUE ...]

The script calls `fedreid-pl compare` with the experiments below and three seeds, and writes its tables between the two
marks in docs/results_v1.md; the text around them is written by hand. Existing runs are not repeated.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pages import between

from fedreid_pl.cli import main

EXPERIMENTS = (
    "local",
    "centralized",
    "fedpav",
    "fedpav_rw",
    "fedpav_kd",
    "fedpav_kd_rw",
    "fedpav_cc",
    "fedpav_cc_rw",
    "fedpav+callbacks.backbone_sync.batch_norm=first",
    "fedpav+callbacks.backbone_sync.batch_norm=recalibrate",
    "fedpav+callbacks.backbone_sync.batch_norm=local",
    "fedpav+fidelity=code",
    "fedpav_kd_rw+fidelity=code",
)
SEEDS = "0 1 2"
DATA = "minireid_v1"  # the study's version
EVERY = 3  # rounds between evaluations: ten of them, four changes in the second half
DOCUMENT = Path(__file__).parent.parent / "docs" / "results_v1.md"
BEGIN, END = "<!-- tables -->", "<!-- end of tables -->"


def study(words: list[str]) -> int:
    """Runs the comparison and writes its tables into the document; returns the exit code."""
    out = Path(f"runs/{DATA}/study")
    command = [
        "compare",
        f"exps={' '.join(EXPERIMENTS)}",
        f"seeds={SEEDS}",
        f"data={DATA}",
        f"evaluate_every={EVERY}",
        "logger=csv",
    ]
    code = main([*command, f"out={out}", *words])
    if not (out / "tables.md").exists():
        return code
    head, _, tables = (out / "tables.md").read_text(encoding="utf-8").partition("\n")
    body = f"{head.removeprefix('# ')}.\n{tables.replace('## ', '### ')}".rstrip("\n")
    DOCUMENT.write_text(between(DOCUMENT.read_text(encoding="utf-8"), BEGIN, END, body), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(study(sys.argv[1:] or ["jobs=2"]))
