"""One of two processes is killed: the other prints one line and stops, and the same command resumes the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import support
from reliability.kills import differences
from reliability.ranks import DDP, GOES_ON, LINES, child_of, ended, kill_one, start, wait

from fedreid_pl.engines.peers import Peers, of_communication

pytestmark = pytest.mark.system

needs_two = pytest.mark.skipif(
    (os.cpu_count() or 1) < 2 or not Path("/proc/self/task").exists(), reason="needs two processors, and /proc"
)


@pytest.fixture(scope="module")
def whole(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of an undisturbed run in two processes."""
    folder = tmp_path_factory.mktemp("whole")
    assert start(tiny_root, folder / "run", folder / "log").wait(300) == 0
    return folder / "run"


@needs_two
@pytest.mark.parametrize("victim", ["first", "second"])
def test_the_other_process_stops_with_one_line_and_the_command_resumes(
    victim: str, tiny_root: Path, tmp_path: Path, whole: Path
) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"
    process = start(tiny_root, folder, log)
    wait((folder / "checkpoints" / "round-00002.ckpt").exists)
    assert kill_one(process, victim) < 60
    lines = log.read_text().splitlines()
    assert lines[-1] == LINES[victim]
    assert sum(line.startswith("error: ") for line in lines) == 1 and "Traceback" not in log.read_text()
    assert not (folder / "checkpoints" / "round-00005.ckpt").exists(), "the kill came too late"
    assert start(tiny_root, folder, log).wait(300) == 0, log.read_text()
    assert "resumed after round" in log.read_text()
    assert differences(whole, folder) == []


@needs_two
@pytest.mark.parametrize("asked", ["first", "second"])
def test_a_signal_to_one_process_ends_both(asked: str, tiny_root: Path, tmp_path: Path) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"
    process = start(tiny_root, folder, log)
    wait((folder / "checkpoints" / "round-00002.ckpt").exists)
    child = child_of(process)
    os.kill(process.pid if asked == "first" else child, signal.SIGTERM)
    assert process.wait(30) == (130 if asked == "first" else 2)
    wait(lambda: ended(child), 30)
    lines = log.read_text().splitlines()
    assert lines[-1].endswith(GOES_ON) and "Traceback" not in log.read_text()
    assert lines[-1].startswith(
        "interrupted; " if asked == "first" else "error: process 2 of 2 ended with exit code 130"
    )
    assert not (folder / "checkpoints" / "round-00005.ckpt").exists(), "the signal came too late"


@needs_two
def test_an_error_of_one_process_is_printed_once(tiny_root: Path, tmp_path: Path) -> None:
    """On a full disk only the first process writes, so the second must print no error."""
    import resource

    words = support.quick(tiny_root, tmp_path / "run", "exp=fedpav", *DDP)
    done = subprocess.run(
        [sys.executable, "-m", "fedreid_pl", "train", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "round-00001.ckpt: cannot be written" in errors[0], done.stderr
    assert "Traceback" not in done.stderr


def sleeper(code: str = "import time; time.sleep(60)") -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code])


def test_the_end_of_a_process_is_described() -> None:
    child, failed, done = sleeper(), sleeper("raise SystemExit(3)"), sleeper("pass")
    failed.wait(), done.wait()
    try:
        assert Peers([child, done]).lost() is None
        assert Peers([done, failed], world=3).lost() == "process 3 of 3 ended with exit code 3"
        child.terminate(), child.wait()
        assert Peers([child], world=2).lost() == "process 2 of 2 was ended by SIGTERM"
        assert Peers(parent=os.getppid()).lost() is None
        assert Peers(parent=os.getpid(), rank=1, world=2).lost() == "process 1 of 2 is gone"
    finally:
        child.kill()


def test_a_waiting_process_is_ended() -> None:
    """Outside collective operations no call fails, so the watch thread must end the process."""
    script = (
        "import subprocess, sys, time; from fedreid_pl.engines import peers\n"
        "peers.GRACE = 0.5\n"
        "child = subprocess.Popen([sys.executable, '-c', 'pass # dies at once by a signal'])\n"
        "child.kill(); child.wait()\n"
        "with peers.Peers([child], world=2):\n    time.sleep(100)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == f"error: process 2 of 2 was ended by SIGKILL; {GOES_ON}\n"


def test_which_errors_come_from_a_lost_connection() -> None:
    gloo = RuntimeError("[gloo/transport/tcp/pair.cc:545] Read error: Connection reset by peer")
    wrapped = ValueError("client a failed")
    wrapped.__cause__ = gloo
    assert of_communication(gloo) and of_communication(wrapped)
    assert not of_communication(RuntimeError("shapes differ")) and not of_communication(ValueError("connection"))
