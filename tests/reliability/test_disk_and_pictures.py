"""A full disk and an image damaged during a run: one error line, no lost results, and the same command resumes."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import support
from reliability.kills import differences

from fedreid_pl.cli import main
from fedreid_pl.client import ReIDClient

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def whole(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of an undisturbed run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert main(["train", *words(tiny_root, folder)]) == 0
    return folder


def words(root: Path, folder: Path) -> list[str]:
    return ["exp=fedpav", *support.quick(root, folder, "data.cache=none", "trainer.accelerator=cpu")]


def train(root: Path, folder: Path, limit: int | None = None) -> subprocess.CompletedProcess:
    """Runs the command in a process that may write no file of more than `limit` bytes."""
    return subprocess.run(
        [sys.executable, "-m", "fedreid_pl", "train", *words(root, folder)],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) if limit else None,
        capture_output=True,
        text=True,
        timeout=300,
    )


def error_line(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and done.stderr.splitlines()[-1] == errors[0] and "Traceback" not in done.stderr
    return errors[0]


@pytest.mark.parametrize(("limit", "file"), [(100, "config.yaml"), (3_000, ".pt"), (200_000, "round-00001.ckpt")])
def test_a_file_that_cannot_be_written(limit: int, file: str, tiny_root: Path, tmp_path: Path, whole: Path) -> None:
    folder = tmp_path / "run"
    line = error_line(train(tiny_root, folder, limit))
    assert file in line and "cannot be written" in line and "Free disk space" in line
    assert not list(folder.rglob("*.tmp")), "no partial file is left"
    assert main(["train", *words(tiny_root, folder)]) == 0
    assert differences(whole, folder) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mounts a file system of one megabyte, if mounting is allowed."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True).returncode
    ):
        pytest.skip("mounting a file system is not allowed here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk(small_disk: Path, tiny_root: Path, tmp_path: Path, whole: Path) -> None:
    """Rounds are saved until the disk is full; on a larger disk the run resumes after the last saved round."""
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 300_000)
    folder = small_disk / "run"
    assert "No space left on device" in error_line(train(tiny_root, folder))
    shutil.copytree(folder, tmp_path / "run")
    assert main(["train", *words(tiny_root, tmp_path / "run")]) == 0
    assert differences(whole, tmp_path / "run") == []


@pytest.mark.parametrize("damage", ["truncated", "gone"])
def test_an_image_that_is_damaged_during_the_run(
    damage: str, tiny_root: Path, tmp_path: Path, whole: Path, monkeypatch: Any, capsys: pytest.CaptureFixture
) -> None:
    root, folder = tmp_path / "data", tmp_path / "run"
    shutil.copytree(tiny_root, root)
    picture = sorted((root / support.TINY[2] / "bounding_box_train").iterdir())[0]
    content, original = picture.read_bytes(), ReIDClient.training_step

    def step(self: ReIDClient, batch: Any, batch_idx: int) -> Any:
        if self.job.round == 2 and picture.exists():
            picture.unlink() if damage == "gone" else picture.write_bytes(content[:200])
        return original(self, batch, batch_idx)

    monkeypatch.setattr(ReIDClient, "training_step", step)
    assert main(["train", *words(root, folder)]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors[-1].startswith("error: ") and picture.name in errors[-1] and "Traceback" not in "".join(errors)
    monkeypatch.undo()
    picture.write_bytes(content)
    assert main(["train", *words(root, folder)]) == 0
    assert (folder / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    assert set(differences(whole, folder)) == {"config.yaml", "summary.json"}, "these two files contain the data's path"
