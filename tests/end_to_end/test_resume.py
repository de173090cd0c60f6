"""A run that was killed by SIGKILL and restarted gives the same bits as an uninterrupted run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import support

from fedreid_pl.cli import main
from fedreid_pl.federation.server.checkpoint import Checkpoints
from fedreid_pl.federation.storage import read_state

pytestmark = pytest.mark.system

ROUNDS = 4


@pytest.fixture(scope="module")
def unbroken(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trains an uninterrupted run of four rounds."""
    folder = tmp_path_factory.mktemp("unbroken")
    assert main(["train", "exp=fedpav_rw", *words(tiny_root, folder)]) == 0
    return folder


def words(root: Path, folder: Path) -> list[str]:
    return support.quick(root, folder, f"rounds={ROUNDS}", "evaluate_every=2", "trainer.accelerator=cpu")


def start(root: Path, folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "fedreid_pl", "train", "exp=fedpav_rw", *words(root, folder)]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    limit = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < limit, f"{path} did not appear"
        time.sleep(0.002)


def assert_same_run(one: Path, other: Path) -> None:
    for folder in ("checkpoints", "clients"):
        names = sorted(path.relative_to(one) for path in (one / folder).rglob("round-*.*"))
        assert names == sorted(path.relative_to(other) for path in (other / folder).rglob("round-*.*"))
        for name in names:
            left, right = read_state(one / name), read_state(other / name)
            for own in ("costs", "turn"):  # durations; the session's name
                left.pop(own, None), right.pop(own, None)
            support.assert_equal(left, right, str(name))
    assert (one / "metrics.csv").read_bytes() == (other / "metrics.csv").read_bytes()


# one kill in the middle of a round, one between a client's own file and the checkpoint, one right after a checkpoint
@pytest.mark.parametrize(
    "instants",
    [
        ("clients/mini-market1501/round-00002.pt",),
        ("clients/mini-ilids/round-00003.pt", "checkpoints/round-00003.ckpt"),
    ],
)
def test_killed_and_resumed_equals_never_killed(
    instants: tuple[str, ...], tiny_root: Path, tmp_path: Path, unbroken: Path
) -> None:
    for instant in instants:
        process = start(tiny_root, tmp_path)
        wait_for(tmp_path / instant, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not Checkpoints(tmp_path / "checkpoints").path(ROUNDS).exists(), "the kill came too late"
    assert main(["train", "exp=fedpav_rw", *words(tiny_root, tmp_path)]) == 0
    assert_same_run(unbroken, tmp_path)


def test_an_interrupted_run_ends_cleanly_and_the_same_command_resumes_it(
    tiny_root: Path, tmp_path: Path, unbroken: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "fedreid_pl", "train", "exp=fedpav_rw", *words(tiny_root, tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(tmp_path / "checkpoints" / "round-00001.ckpt", process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in errors.splitlines()[-1] and "Traceback" not in errors
    assert main(["train", "exp=fedpav_rw", *words(tiny_root, tmp_path)]) == 0
    assert_same_run(unbroken, tmp_path)


def test_a_damaged_last_checkpoint_repeats_only_one_round(
    tiny_root: Path, tmp_path: Path, unbroken: Path, capsys: pytest.CaptureFixture
) -> None:
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(unbroken, folder)
    last = folder / "checkpoints" / f"round-{ROUNDS:05d}.ckpt"
    last.write_bytes(last.read_bytes()[:-100])
    assert main(["train", "exp=fedpav_rw", *words(tiny_root, folder)]) == 0
    assert "damaged" in capsys.readouterr().err
    assert_same_run(unbroken, folder)


def test_resume_never_and_path(tiny_root: Path, tmp_path: Path, unbroken: Path) -> None:
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(unbroken, folder)
    assert main(["train", "exp=fedpav_rw", *words(tiny_root, folder), "resume=never"]) == 0
    assert (tmp_path / "run.old-1" / "summary.json").exists(), "the earlier run is kept"
    assert_same_run(unbroken, folder)
    # from round 3 of another folder, in a new one
    other = tmp_path / "other"
    source = unbroken / "checkpoints" / "round-00003.ckpt"
    assert main(["train", "exp=fedpav_rw", *words(tiny_root, other), f"resume={source}"]) == 0
    assert (other / "metrics.csv").read_bytes() == (unbroken / "metrics.csv").read_bytes()


def test_more_rounds_continue_a_finished_run(tiny_root: Path, tmp_path: Path) -> None:
    for rounds in (1, 3):
        assert main(["train", "exp=fedpav", *support.quick(tiny_root, tmp_path / "long", f"rounds={rounds}")]) == 0
    assert main(["train", "exp=fedpav", *support.quick(tiny_root, tmp_path / "once", "rounds=3")]) == 0
    assert (tmp_path / "long" / "metrics.csv").read_bytes() == (tmp_path / "once" / "metrics.csv").read_bytes()
