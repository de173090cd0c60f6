"""Two real processes under Lightning's DDP, started by one command."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import support
from end_to_end.two_processes import in_two_processes, reports_of

from fedreid_pl.cli import main

DDP = ("trainer.strategy=ddp", "trainer.devices=2", "trainer.accelerator=cpu")

pytestmark = [pytest.mark.system, pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two processors")]


@pytest.fixture(scope="module")
def ddp_run(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trains two rounds in two processes, in the folder `run`; the fixture includes the report of each process."""
    folder = tmp_path_factory.mktemp("ddp")
    words = support.quick(tiny_root, folder / "run", "exp=fedpav_rw", *DDP)
    (folder / "stderr.txt").write_text(in_two_processes(folder, {"fedpav_rw": words}, seconds=300))
    return folder


def test_all_ranks_have_identical_bits_and_only_the_first_writes(ddp_run: Path) -> None:
    first, second = (report["fedpav_rw"] for report in reports_of(ddp_run))
    assert first["digest"] == second["digest"]
    assert first["history"] == second["history"]
    assert first["written"] and not second["written"]


def test_every_line_is_printed_once(ddp_run: Path) -> None:
    lines = (ddp_run / "stderr.txt").read_text().splitlines()
    assert len([line for line in lines if line.startswith("round ")]) == 2
    assert len([line for line in lines if line.startswith("fedpav_rw:")]) == 1


def test_metrics_are_the_same_for_one_and_two_processes(
    ddp_run: Path, capsys: pytest.CaptureFixture, tiny_root: Path
) -> None:
    assert main(["evaluate", f"run={ddp_run / 'run'}", "trainer.devices=1", "trainer.strategy=auto"]) == 0
    one = capsys.readouterr().out
    two = support.run_cli("evaluate", f"run={ddp_run / 'run'}", OMP_NUM_THREADS="1")
    assert two.returncode == 0, two.stderr
    assert two.stdout == one
    summary = json.loads((ddp_run / "run" / "summary.json").read_text())
    for name in support.TINY:
        line = next(line for line in one.splitlines() if line.startswith(name))
        assert line.split()[1] == f"{100 * summary['global'][name]['rank1']['last']:.1f}"


def test_a_single_process_resumes_a_run_of_two(ddp_run: Path, tiny_root: Path) -> None:
    words = support.quick(tiny_root, ddp_run / "run", "exp=fedpav_rw", "rounds=3", "trainer.accelerator=cpu")
    assert main(["train", *words]) == 0
    assert json.loads((ddp_run / "run" / "summary.json").read_text())["rounds"] == 3
