"""engine=ray on a cluster of two nodes with separate working folders; the loss of a node, and a killed driver."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engines.ray_nodes import end, environment_of, start_head, start_node
from engines.ray_nodes import short as short
from engines.test_ray import assert_same_run, words

from fedreid_pl.cli import main
from fedreid_pl.engines.ray import leftovers

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two processors"),
]


def until(holds: Callable[[], object], seconds: float = 400.0) -> None:
    """Waits until a condition is true."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "the condition is still false at the time limit"
        time.sleep(0.05)


class Nodes:
    """Two nodes with one processor each on this machine, started by `ray start` in two folders.

    Args:
        folder: the parent of their working folders.
        own: the folder of Ray's files.
    """

    def __init__(self, folder: Path, own: Path) -> None:
        self.environment = environment_of(own)
        head, self.address = start_head(self.environment, folder / "one", "--num-cpus=1")
        self.second = start_node(self.environment, folder / "two", f"--address={self.address}", "--num-cpus=1")
        self.processes = [head, self.second]
        assert any("Ray runtime started" in line for line in self.second.stdout or ()), "the second node did not start"

    def lose_the_second(self) -> None:
        """Kills the second node's raylet with SIGKILL."""
        for number in map(int, filter(str.isdigit, os.listdir("/proc"))):
            try:
                parent = int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])
                name = Path(f"/proc/{number}/comm").read_text().strip()
            except (OSError, ValueError):
                continue
            if parent == self.second.pid and name == "raylet":
                os.kill(number, signal.SIGKILL)
                return
        raise AssertionError("the second node has no raylet")

    def close(self) -> None:
        """Stops both nodes."""
        end(self.processes)


@pytest.fixture
def nodes(tmp_path: Path, short: Path) -> Iterator[Nodes]:
    started = Nodes(tmp_path / "nodes", short)
    yield started
    started.close()


def drive(nodes: Nodes, command: list[str], place: Path) -> subprocess.Popen:
    """Trains a run in a separate folder that joins the cluster."""
    place.mkdir()
    more = ["engine=ray", f"engine.address={nodes.address}", "engine.slots=2"]
    return subprocess.Popen(
        [sys.executable, "-m", "fedreid_pl", *command, *more],
        cwd=place, env={**nodes.environment, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_two_nodes_without_a_shared_folder_and_the_loss_of_one(tiny_root: Path, tmp_path: Path, nodes: Nodes) -> None:
    straight, folder, sent = (tmp_path / name / "run" / "it" for name in ("straight", "folder", "sent"))
    assert main(words("scaffold", tiny_root, straight)) == 0
    ended = drive(nodes, words("scaffold", tiny_root, folder, "engine.client_state=folder"), tmp_path / "cwd1")
    said = ended.communicate(timeout=600)[1]
    assert ended.returncode == 0 and "2 slots of 1 thread on 2 machines" in said, said
    assert_same_run(straight, folder)

    running = drive(nodes, words("scaffold", tiny_root, sent, "engine.client_state=driver"), tmp_path / "cwd2")
    until(lambda: (sent / "checkpoints" / "round-00001.ckpt").exists() or running.poll() is not None)
    nodes.lose_the_second()
    said = running.communicate(timeout=600)[1]
    assert running.returncode == 0, said
    assert_same_run(straight, sent)


def sessions_of(number: int) -> list[Path]:
    """Returns the Ray sessions that a driver has started."""
    return [folder for folder, driver, _ in leftovers.marked_sessions() if driver == number]


def test_a_killed_and_an_interrupted_driver(
    tiny_root: Path, tmp_path: Path, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(short))
    straight, folder = tmp_path / "straight" / "run" / "it", tmp_path / "again" / "run" / "it"
    assert main(words("ditto", tiny_root, straight)) == 0
    command = words("ditto", tiny_root, folder, "engine=ray", "engine.slots=2")

    def start() -> subprocess.Popen:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
        return subprocess.Popen(
            [sys.executable, "-m", "fedreid_pl", *command], env=environment, stderr=subprocess.PIPE, text=True
        )

    first = start()
    until(lambda: (folder / "checkpoints" / "round-00001.ckpt").exists())
    (session,) = sessions_of(first.pid)
    first.kill()
    first.communicate()
    second = start()
    until(lambda: (folder / "checkpoints" / "round-00002.ckpt").exists() or second.poll() is not None)
    assert list(leftovers.processes_of(session)) == [], "the second start has killed the leftover processes"
    (session,) = sessions_of(second.pid) or [None]
    second.send_signal(signal.SIGINT)
    said = second.communicate(timeout=60)[1]
    assert second.returncode in (0, 130), said
    assert "Traceback" not in said and "SystemError" not in said
    assert ("interrupted; finished rounds are saved" in said) == (second.returncode == 130)
    assert session is not None
    until(lambda: not list(leftovers.processes_of(session)), 10.0)
    assert main(words("ditto", tiny_root, folder)) == 0, "without Ray"
    assert_same_run(straight, folder)
