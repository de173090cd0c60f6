"""engine=ray with an object store smaller than a round's models, with and without free disk space."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engines.ray_nodes import end, environment_of, start_head
from engines.ray_nodes import short as short
from engines.test_ray import assert_same_run, words

from fedreid_pl.cli import main

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two processors"),
]
STORE = 78_643_200  # bytes, Ray's minimum; one backbone of ResNet-18 has 44.8 million bytes
MODEL = ["model.name=resnet18", "rounds=1"]
Start = Callable[..., tuple[str, dict[str, str]]]


@pytest.fixture
def start_small(tmp_path: Path, short: Path) -> Iterator[Start]:
    """Starts a node with a small store; returns its address and the environment for runs that join it.

    Ray does not spill to a disk that is more than 95 % full; the node disables this limit.
    """
    nodes: list[subprocess.Popen[str]] = []

    def start(**variables: str) -> tuple[str, dict[str, str]]:
        full = {"RAY_local_fs_capacity_threshold": "1.0"}
        environment = {**environment_of(short), "OMP_NUM_THREADS": "1", **full, **variables}
        node, address = start_head(environment, tmp_path / "node", "--num-cpus=2", f"--object-store-memory={STORE}")
        nodes.append(node)
        return address, environment

    yield start
    end(nodes)


def drive(root: Path, folder: Path, address: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Trains a run that joins the node."""
    engine = ["engine=ray", "engine.slots=2", f"engine.address={address}"]
    command = [sys.executable, "-m", "fedreid_pl", *words("fedpav", root, folder, *MODEL, *engine)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


def test_models_that_do_not_fit_are_spilled_to_the_disk(tiny_root: Path, tmp_path: Path, start_small: Start) -> None:
    straight, folder = (tmp_path / name / "run" / "it" for name in ("straight", "full"))
    assert main(words("fedpav", tiny_root, straight, *MODEL)) == 0
    ended = drive(tiny_root, folder, *start_small())
    assert ended.returncode == 0, ended.stderr
    assert_same_run(straight, folder)


def test_a_full_disk_gives_one_error_line(tiny_root: Path, tmp_path: Path, start_small: Start) -> None:
    folder = tmp_path / "run" / "it"
    ended = drive(tiny_root, folder, *start_small(RAY_local_fs_capacity_threshold="0.0001"))
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "does not fit into Ray's object store" in ended.stderr
