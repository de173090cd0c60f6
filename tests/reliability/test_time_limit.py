"""A slow, hanging or failing client: skipped after the time limit, or its job is repeated with the same bits."""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import support
from reliability.bad_updates import hang

from fedreid_pl.cli import main
from fedreid_pl.client import ReIDClient
from fedreid_pl.federation.client.time_limit import TimeLimit, TurnTimeout
from fedreid_pl.federation.storage import read_state

pytestmark = pytest.mark.system

LAST = support.TINY[2]


def models(folder: Path) -> dict[str, Any]:
    return read_state(folder / "checkpoints" / "round-00002.ckpt")["models"]


def disturb(monkeypatch: pytest.MonkeyPatch, what: Any, times: int) -> list[int]:
    """Calls `what` in the training step of the last client, in its first `times` turns."""
    original, turns = ReIDClient.training_step, []

    def step(self: ReIDClient, batch: Any, batch_idx: int) -> Any:
        if self.job.client == LAST and len(turns) < times:
            turns.append(self.job.round)
            what()
        return original(self, batch, batch_idx)

    monkeypatch.setattr(ReIDClient, "training_step", step)
    return turns


def test_a_hanging_client_is_skipped(
    tiny_root: Path, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture
) -> None:
    two = f"data.datasets=[{','.join(support.TINY[:2])}]"
    assert main(["train", "exp=fedpav", *support.quick(tiny_root, tmp_path / "two", two)]) == 0
    turns = disturb(monkeypatch, hang, times=99)
    words = support.quick(tiny_root, tmp_path / "three", "client_timeout=3", "client_retries=0")
    assert main(["train", "exp=fedpav", *words]) == 0
    assert turns == [1, 2]
    support.assert_equal(models(tmp_path / "three"), models(tmp_path / "two"))
    summary = json.loads((tmp_path / "three" / "summary.json").read_text())
    assert summary["rejections"] == {LAST: {"TurnTimeout": [1, 2]}}
    assert "longer than client_timeout=3 seconds; it was stopped within a batch" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL, "no alarm is left"


def test_the_job_of_a_client_that_fails_once_is_repeated_with_the_same_result(
    tiny_root: Path, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("lost the connection to /home/clinic/ward-7")

    assert main(["train", "exp=fedpav_rw", *support.quick(tiny_root, tmp_path / "calm")]) == 0
    assert disturb(monkeypatch, fail, times=1) == []
    assert main(["train", "exp=fedpav_rw", *support.quick(tiny_root, tmp_path / "shaken")]) == 0
    support.assert_equal(models(tmp_path / "shaken"), models(tmp_path / "calm"))
    errors = capsys.readouterr().err
    assert f"client {LAST} is left out: RuntimeError: lost the connection to /home/clinic/ward-7" in errors
    assert f"round 1: client {LAST} gets the job again" in errors
    kept = (tmp_path / "shaken" / "summary.json").read_text()
    assert json.loads(kept)["rejections"] == {LAST: {"RuntimeError": [1]}}
    assert "ward-7" not in kept, "the error text is only printed"


def test_the_clock_is_checked_between_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with TimeLimit(60.0) as limit:
        for second in (0, 30, 59.9):
            now[0] = 100 + second
            limit.on_train_batch_end()
        now[0] = 160.1
        with pytest.raises(TurnTimeout, match="client_timeout=60 seconds"):
            limit.on_test_batch_end()
    limit.on_train_batch_end()  # outside a turn there is no limit


def test_without_a_limit_there_is_no_alarm() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with TimeLimit(None) as limit:
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0 and signal.getsignal(signal.SIGALRM) is before
        limit.on_train_batch_end()
    with TimeLimit(50.0):
        assert 50 < signal.getitimer(signal.ITIMER_REAL)[0] <= 55
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0 and signal.getsignal(signal.SIGALRM) is before


def test_outside_the_main_thread_only_the_clock_is_checked() -> None:
    found: list[float] = []

    def turn() -> None:
        with TimeLimit(50.0):
            found.append(signal.getitimer(signal.ITIMER_REAL)[0])

    thread = threading.Thread(target=turn)
    thread.start()
    thread.join()
    assert found == [0.0]
