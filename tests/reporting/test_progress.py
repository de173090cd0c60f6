"""Progress of a run: whole lines in a file, one updated line in a terminal."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
import support

from fedreid_pl.federation.server.history import History
from fedreid_pl.reporting.progress import ProgressLine
from fedreid_pl.reporting.status import Status, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def federation(round: int = 0, rounds: int = 20, **scores: float) -> Any:
    history = History()
    for name, value in scores.items():
        history.add(round, "global", name, "rank1", value)
    return SimpleNamespace(
        round=round, rounds=rounds, history=history, selected=["a", "b", "c"], running={}, done=0, asked=3
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("fedreid_pl.reporting.progress.time.monotonic", lambda: now[0])
    return now


def test_a_file_gets_one_line_per_round(clock: list[float]) -> None:
    stream, run = io.StringIO(), federation()
    line = ProgressLine(stream)
    clock[0] += 500
    line.on_start(run)
    for round in (1, 2):
        clock[0] += 30
        run.round = round
        for client in "abc":
            line.on_client(run, "fit", support.fit_job(round, client))
            run.history.add(round, "train", client, "loss", {"a": 1.0, "b": 2.0, "c": 6.0}[client] / round)
        line.on_client(run, "evaluate", support.evaluate_job(round, "a"))
        if round == 2:
            run.history.add(round, "global", "a", "rank1", 0.25)
            run.history.add(round, "global", "b", "rank1", 0.5)
            run.history.add(round, "local", "b", "rank1", 1.0)
        line.on_round_end(run, run.history.of_round(round))
    line.on_warning(run, "round 2: client b is left out")
    assert stream.getvalue().splitlines() == [
        "round  1/20  loss 3.000  9 min 30 s left",
        "round  2/20  loss 1.500  mean Rank-1 (round 2): global 37.5, local 100.0  9 min 0 s left",
        "warning: round 2: client b is left out",
    ]
    assert stream.getvalue().endswith("\n")


def test_the_time_left_counts_from_the_resumed_round(clock: list[float]) -> None:
    stream, run = io.StringIO(), federation(round=15)
    line = ProgressLine(stream)
    line.on_start(run)
    clock[0] += 10
    run.round = 16
    line.on_round_end(run, [])
    assert stream.getvalue() == "round 16/20  40 s left\n"
    run.round, clock[0] = 20, clock[0] + 100
    line.on_round_end(run, [])
    assert stream.getvalue().splitlines()[1] == "round 20/20  0 s left"


def test_a_terminal_shows_the_working_client(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    size = [100]
    monkeypatch.setattr("fedreid_pl.reporting.progress.columns", lambda stream: size[0])
    stream, run = Terminal(), federation(round=3, x=0.5)
    line = ProgressLine(stream)
    line.on_start(federation(round=1))

    def shown() -> str:
        text = stream.getvalue()
        stream.truncate(0), stream.seek(0)
        return text

    line.on_client(run, "fit", support.fit_job(3, "b"))
    assert shown() == "\r\x1b[Kround  3/20  training b 2/3  mean Rank-1 (round 3): global 50.0  0 s left"
    line.on_start(federation(round=2))
    clock[0] += 60
    line.on_round_end(run, [])
    assert shown() == "\r\x1b[Kround  3/20  mean Rank-1 (round 3): global 50.0  17 min 0 s left\n"
    run.round, clock[0] = 4, clock[0] + 20
    wordings = {
        80: "round  4/20  training b 2/3  Rank-1 global 50.0  16 min 40 s left",
        60: "round  4/20  b 2/3  Rank-1 global 50.0  16 min 40 s left",
        40: "4/20 b 2/3 R1 50.0, 16 min",
        12: "4/20 b 2/3",
        8: "4/20 b…",
    }
    for size[0], wording in wordings.items():
        line.on_client(run, "fit", support.fit_job(4, "b"))
        assert shown() == "\r\x1b[K" + wording
    size[0] = 40
    line.on_client(run, "evaluate", support.evaluate_job(4, "c" * 100))
    assert shown() == "\r\x1b[Kround  4/20  " + "c" * 25 + "…"
    line.on_warning(run, "round 4: client b is left out: it holds NaN " + "w" * 50)
    lines = shown().removeprefix("\r\x1b[K").splitlines()
    assert lines == ["warning: round 4: client b is left out:", "it holds NaN", "w" * 50], "a warning is not truncated"
    clock[0] += 40
    for size[0], wording in {60: "Rank-1 global 50.0  16 min 0 s left", 40: " R1 50.0  16 min 0 s left"}.items():
        run.round, line._started, line._first = 4, clock[0] - 120, 2
        line.on_round_end(run, [])
        assert shown() == f"\r\x1b[Kround  4/20  {wording.strip()}\n"


def test_several_working_clients_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedreid_pl.reporting.progress.columns", lambda stream: 60)
    stream, run = Terminal(), federation(round=3)
    line = ProgressLine(stream)
    line.on_start(run)

    def start(client: str) -> None:
        run.running[client] = None
        line.on_progress(run)
        line.on_client(run, "fit", support.fit_job(3, client))

    def end(client: str) -> None:
        del run.running[client]
        run.done += 1
        line.on_progress(run)

    start("a"), start("b"), end("b"), start("c"), end("a"), end("c")
    assert [text.removeprefix("\x1b[K") for text in stream.getvalue().split("\r")[1:]] == [
        "round  3/20  training a 1/3",
        "round  3/20  training: 2 running, 0 of 3 done",
        "round  3/20  training: 1 running, 1 of 3 done",
        "round  3/20  training: 2 running, 1 of 3 done",
        "round  3/20  training: 2 running, 1 of 3 done",
        "round  3/20  training: 1 running, 2 of 3 done",
        "round  3/20  training: 0 running, 3 of 3 done",
    ]


def test_a_dumb_terminal_gets_no_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream, run = Terminal(), federation(round=1)
    line = ProgressLine(stream)
    line.on_start(run)
    line.on_client(run, "fit", support.fit_job(1, "b"))
    run.round = 2
    line.on_round_end(run, [])
    Status(stream)("reading")
    assert stream.getvalue().splitlines() == ["round  2/20  0 s left", "reading"]


def test_a_status_is_one_line_in_a_terminal_and_rare_in_a_file(clock: list[float]) -> None:
    terminal, file = Terminal(), io.StringIO()
    shown, written = Status(terminal), Status(file)
    for number in range(25):
        shown(f"{number} of 25 images")
        written(f"{number} of 25 images")
        clock[0] += 1.0
    assert "\n" not in terminal.getvalue() and terminal.getvalue().endswith("\r\x1b[K24 of 25 images")
    assert file.getvalue().splitlines() == [f"{number} of 25 images" for number in (0, 11, 22)]
    shown.done()
    written.done()
    assert terminal.getvalue().endswith("images\r\x1b[K") and file.getvalue().endswith("22 of 25 images\n")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3599.7, "1 h 0 min"),
        (3661, "1 h 1 min"),
        (100 * 3600, "100 h 0 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
