"""The runner, with a script that replaces `python -m fedreid_pl train`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from fedreid_pl.commands.words import run_folder
from fedreid_pl.comparison import runner
from fedreid_pl.comparison.plan import Plan, make_plan


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def plan(exps: str, **options: str) -> Plan:
    return make_plan({"exps": exps, **options}, ["rounds=4"], run_folder)


def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> Path:
    """Makes the runner call a shell script; returns the script's notes file."""
    script, notes = tmp_path / "python", tmp_path / "notes"
    script.write_text(f"#!/bin/sh\nnotes='{notes}'\n{body}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.setattr(runner, "PAUSE", 0.01)
    return notes


def test_at_most_jobs_runs_at_a_time_and_a_failure_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(runner, "_cores", lambda: 7)
    notes = stub(
        tmp_path,
        monkeypatch,
        'echo "start $OMP_NUM_THREADS" >> $notes; sleep 0.2; echo end >> $notes; echo "seen $*"\n'
        'case "$*" in *seed=1*) echo "error: no room" >&2; exit 2;; esac',
    )
    runs = plan("local", seeds="0 1 2 3").runs
    runner.train_runs(runs, jobs=2)
    lines = notes.read_text().split("\n")[:-1]
    assert lines.count("start 3") == lines.count("end") == 4, "seven cores shared by two runs"
    running = [sum(1 if line != "end" else -1 for line in lines[: index + 1]) for index in range(len(lines))]
    assert max(running) == 2
    for run in runs:
        assert (run.folder / "train.log").read_text().startswith(f"seen -m fedreid_pl train {' '.join(run.words)}")
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("run 2 of 4: local seed 1 ")]
    assert len(said) == 2 and "failed" in said[1] and "no room" in said[1] and "train.log" in said[1]


def test_a_second_attempt_prints_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (run,) = plan("local").runs
    run.folder.mkdir(parents=True)
    (run.folder / "train.log").write_text("error: of the first attempt\n")
    stub(tmp_path, monkeypatch, "echo Killed; exit 9")
    runner.train_runs([run], jobs=2)
    said = capsys.readouterr().err
    assert "Killed" in said and "first attempt" not in said
    assert (run.folder / "train.log").read_text() == "error: of the first attempt\nKilled\n"


def test_one_job_writes_to_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    stub(tmp_path, monkeypatch, "echo table; echo progress >&2")
    (run,) = plan("local").runs
    runner.train_runs([run], jobs=1)
    captured = capfd.readouterr()
    assert captured.out == "" and "table\nprogress\n" in captured.err
    assert not run.folder.exists()


def test_a_folder_that_cannot_be_created_counts_as_one_failed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    notes = stub(tmp_path, monkeypatch, "echo ran >> $notes")
    runs = plan("local", seeds="0 1").runs
    runs[0].folder.parent.mkdir(parents=True)
    runs[0].folder.write_text("a file")
    runner.train_runs(runs, jobs=2)
    assert "local seed 0 failed" in capsys.readouterr().err and notes.read_text() == "ran\n"


def test_an_interrupt_stops_the_children_and_waits_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = stub(
        tmp_path,
        monkeypatch,
        "trap 'sleep 0.2; echo saved >> $notes; exit 130' TERM\n"
        "echo ready >> $notes; i=0; while [ $i -lt 600 ]; do sleep 0.1; i=$((i+1)); done",
    )

    class Stop(BaseException):
        pass

    stopped: list[Stop] = []
    sleep = time.sleep

    def pause(seconds: float) -> None:
        if not stopped and notes.exists() and notes.read_text().count("ready") == 2:
            stopped.append(Stop())
            raise stopped[0]
        sleep(seconds)

    monkeypatch.setattr(runner.time, "sleep", pause)
    with pytest.raises(Stop):
        runner.train_runs(plan("local", seeds="0 1 2").runs, jobs=2)
    assert notes.read_text().split() == ["ready", "ready", "saved", "saved"]
