"""Clients with too few images for two processes: no crash, no padding, and the bits of one process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import support

from fedreid_pl.cli import main
from fedreid_pl.federation.storage import read_state

pytestmark = [pytest.mark.system, pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two processors")]

DRAWN = ("data.jitter=0.2", "data.erasing=0.5", "batch_size=4", "exp=fedpav_rw")


@pytest.fixture(scope="module")
def small_root(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Creates the tiny datasets with three, two and three training images of two persons each."""
    root = tmp_path_factory.mktemp("small") / "data"
    shutil.copytree(tiny_root, root)
    for name, keep in zip(support.TINY, (3, 2, 3), strict=True):
        images = sorted((root / name / "bounding_box_train").iterdir())
        persons = [image.name.split("_")[0] for image in images]
        other = next(place for place, person in enumerate(persons) if person != persons[0])
        kept = [images[other], *images[: keep - 1]]
        for image in images:
            if image not in kept:
                image.unlink()
    return root


def test_two_processes_give_the_bits_of_one(small_root: Path, tmp_path: Path) -> None:
    def words(processes: int) -> list[str]:
        strategy = ("trainer.accelerator=cpu", f"trainer.devices={processes}")
        return ["train", *support.quick(small_root, tmp_path / str(processes), *DRAWN, *strategy)]

    assert main(words(1)) == 0
    done = subprocess.run(
        [sys.executable, "-m", "fedreid_pl", *words(2)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    one, two = (read_state(tmp_path / count / "checkpoints" / "round-00002.ckpt") for count in "12")
    support.assert_equal(one["models"], two["models"])
    assert one["models"]["global"]["bottleneck.1.num_batches_tracked"] == 2  # one step per round, no step dropped
    assert one["weights"] == two["weights"]
    assert (tmp_path / "1" / "metrics.csv").read_text() == (tmp_path / "2" / "metrics.csv").read_text()
