"""Real launchers and what they leave behind: exit code 0 means that the run is whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import support

from fedreid_pl.config.launch import clean_environment

pytestmark = pytest.mark.system


def start(command: list[str], words: list[str], **variables: str) -> subprocess.CompletedProcess:
    environment = {**clean_environment(os.environ), "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run([*command, "train", *words], env=environment, capture_output=True, text=True, timeout=300)


def test_leftovers_of_a_launcher_do_not_stop_a_run(tiny_root: Path, tmp_path: Path) -> None:
    words = support.quick(tiny_root, tmp_path / "run", "rounds=1", "trainer.accelerator=cpu")
    ended = start([sys.executable, "-m", "fedreid_pl"], words, RANK="1", LOCAL_RANK="1", SLURM_PROCID="3")
    assert ended.returncode == 0 and (tmp_path / "run" / "summary.json").is_file(), ended.stderr
    assert ended.stderr.count("warning: RANK=1") == 1


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two processors")
def test_torchrun_trains_with_two_processes(tiny_root: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "fedreid_pl"]
    words = support.quick(tiny_root, tmp_path / "run", "rounds=1", "trainer.accelerator=cpu", "trainer.devices=2")
    ended = start(torchrun, words)
    assert ended.returncode == 0 and (tmp_path / "run" / "summary.json").is_file(), ended.stderr
