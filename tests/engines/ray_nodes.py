"""Nodes of Ray on this machine, started by `ray start`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def short() -> Iterator[Path]:
    """Creates a folder whose path is short enough for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def environment_of(own: Path) -> dict[str, str]:
    """Returns the environment of nodes and of runs that join them; Ray writes its files to `own`."""
    return {
        **os.environ,
        "RAY_TMPDIR": str(own),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "a" * 64,
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
        "PYTHONUNBUFFERED": "1",
    }


def start_node(environment: dict[str, str], place: Path, *words: str) -> subprocess.Popen[str]:
    """Starts a node without GPUs in a new working folder; `words` are additional arguments of `ray start`."""
    place.mkdir(parents=True)
    options = ["--num-gpus=0", "--disable-usage-stats", "--block"]
    return subprocess.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", "start", *words, *options],
        cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def start_head(environment: dict[str, str], place: Path, *words: str) -> tuple[subprocess.Popen[str], str]:
    """Starts the head node and returns it with its address."""
    head = start_node(environment, place, "--head", "--port=0", "--include-dashboard=false", *words)
    line = next(line for line in head.stdout or () if "ray start --address=" in line)
    found = re.search(r"--address='([^']+)'", line)
    assert found
    return head, found[1]


def end(nodes: list[subprocess.Popen[str]]) -> None:
    """Stops nodes."""
    for node in nodes:
        node.terminate()
    for node in nodes:
        node.wait(30)
