"""engine=ray with an object store that is smaller than a round's models, with and without room on the disk."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engines.test_ray import assert_same_run, words
from engines.test_ray_nodes import short as short

from fedreid_pl.cli import main

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two processors"),
]
STORE = 78_643_200  # bytes, the least that Ray takes; one backbone of ResNet-18 has 44.8 million
MODEL = ["model.name=resnet18", "rounds=1"]
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
Start = Callable[..., tuple[str, dict[str, str]]]


@pytest.fixture
def start_node(short: Path) -> Iterator[Start]:
    """Starts a node with a small store; returns its address and the environment of those who join."""
    nodes: list[subprocess.Popen] = []

    def start(**variables: str) -> tuple[str, dict[str, str]]:
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "b" * 64, "OMP_NUM_THREADS": "1"}
        environment = {**os.environ, **token, "RAY_TMPDIR": str(short), "PYTHONUNBUFFERED": "1", **variables}
        options = ["--head", "--port=0", "--num-cpus=2", "--num-gpus=0", f"--object-store-memory={STORE}"]
        command = [*RAY, "start", *options, "--include-dashboard=false", "--disable-usage-stats", "--block"]
        nodes.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
        line = next(line for line in nodes[-1].stdout or () if "ray start --address=" in line)
        return line.split("--address=")[1].strip(" '\n"), environment

    yield start
    for node in nodes:
        node.terminate()
        node.wait(30)


def drive(root: Path, folder: Path, address: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A run that joins the node."""
    engine = ["engine=ray", "engine.slots=2", f"engine.address={address}"]
    command = [sys.executable, "-m", "fedreid_pl", *words("fedpav", root, folder, *MODEL, *engine)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


def test_models_that_do_not_fit_go_to_the_disk(tiny_root: Path, tmp_path: Path, start_node: Start) -> None:
    straight, folder = (tmp_path / name / "run" / "it" for name in ("straight", "full"))
    assert main(words("fedpav", tiny_root, straight, *MODEL)) == 0
    ended = drive(tiny_root, folder, *start_node())
    assert ended.returncode == 0, ended.stderr
    assert_same_run(straight, folder)


def test_without_room_on_the_disk_one_line_says_so(tiny_root: Path, tmp_path: Path, start_node: Start) -> None:
    folder = tmp_path / "run" / "it"
    ended = drive(tiny_root, folder, *start_node(RAY_local_fs_capacity_threshold="0.0001"))
    print(ended.stderr)
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "does not fit into Ray's object store" in ended.stderr
