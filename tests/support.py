"""Helpers for several test files: tiny data and the settings of a quick run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from fedreid_pl.data.minireid import PUBLIC, domains_of, write_benchmark
from fedreid_pl.federation.messages import ClientJob

TINY = ("mini-market1501", "mini-viper", "mini-ilids")


def write_tiny(root: Path) -> Path:
    """Writes three datasets of a few dozen images each and a public one, in Market-1501's layout."""
    first = domains_of(1)  # version 1 has small test sets
    domains = [first[name].scaled(0.12) for name in TINY] + [first[PUBLIC.name].scaled(0.05)]
    write_benchmark(root, domains, processes=1)
    return root


def quick(root: Path, output: Path, *words: str) -> list[str]:
    """Returns the settings of a run of two rounds over the tiny data, which takes a few seconds."""
    return [
        "data.source=folder",
        f"data.root={root}",
        f"data.datasets=[{','.join(TINY)}]",
        "data.public=mini-cuhk02",
        "model.weights=none",
        "optim.lr_backbone=0.02",
        "optim.lr_head=0.02",
        "rounds=2",
        "evaluate_every=1",
        "batch_size=8",
        "logger=none",
        f"output_dir={output}",
        *words,
    ]


def fit_job(
    round: int, client: str, backbone: Any = None, config: Any = None, extras: Any = None, kind: str = "fit"
) -> ClientJob:
    """Returns a training job with an arbitrary session and attempt."""
    job = ClientJob(kind, "session", round, 1, client, config=config or {}, extras=extras or {})
    return job.exchanging(backbone or {})


def evaluate_job(round: int, client: str, backbone: Any = None, config: Any = None) -> ClientJob:
    """Returns an evaluation job with an arbitrary session and attempt."""
    return fit_job(round, client, backbone, config, kind="evaluate")


def run_cli(*words: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess:
    """Runs `python -m fedreid_pl WORDS` in a separate process, without the wandb service of this process."""
    inherited = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    return subprocess.run(
        [sys.executable, "-m", "fedreid_pl", *words],
        cwd=cwd,
        env={**inherited, **env},
        capture_output=True,
        text=True,
        timeout=300,
    )


def without_times(summary: dict) -> dict:
    """Reads a summary without the values that differ between equal runs: durations and memory."""
    costs = {key: value for key, value in summary["costs"].items() if key not in ("seconds", "peak_memory_bytes")}
    return {**summary, "costs": costs}


def assert_equal(left: object, right: object, where: str = "") -> None:
    """Asserts that nested dicts of tensors and plain values are equal to the last bit."""
    if isinstance(left, torch.Tensor):
        assert isinstance(right, torch.Tensor) and torch.equal(left, right), where
    elif isinstance(left, dict):
        assert isinstance(right, dict) and left.keys() == right.keys(), where
        for key in left:
            assert_equal(left[key], right[key], f"{where}/{key}")
    else:
        assert left == right, where
