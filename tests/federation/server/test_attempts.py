"""Session and attempt after kills: the number never falls, and a repeated round keeps its attempt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedreid_pl.federation.server.attempts import NAME, Attempts


def test_a_round_that_is_repeated_after_a_kill_keeps_its_attempt(tmp_path: Path) -> None:
    first = Attempts(tmp_path)
    assert [first.begin(1), first.begin(2), first.again()] == [1, 1, 2]
    second = Attempts(tmp_path)
    assert (second.session, second.begin(2)) == (first.session, 2), "an answer to the earlier job is valid"
    assert second.begin(3) == 2


def test_resuming_from_an_earlier_round_starts_the_next_attempt(tmp_path: Path) -> None:
    Attempts(tmp_path).begin(7)
    back = Attempts(tmp_path)
    assert [back.begin(5), back.begin(6), back.begin(7), back.begin(8)] == [2, 2, 2, 2]


def test_the_file_is_saved_before_any_job_and_by_the_first_process_only(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path)
    attempts.begin(4)
    saved = json.loads((tmp_path / NAME).read_text())
    assert saved == {"session": attempts.session, "round": 4, "attempt": 1}
    other = Attempts(tmp_path, writable=False)
    other.begin(9)
    assert json.loads((tmp_path / NAME).read_text()) == saved
    assert Attempts().session != Attempts().session


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"session": 5, "round": 1, "attempt": 1}',
        '{"session": "0123456789abcdef", "round": -1, "attempt": 1}',
        '{"session": "0123456789abcdef", "round": true, "attempt": 1}',
        "[" * 10**5,
    ],
)
def test_a_damaged_file_starts_a_new_session(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    attempts = Attempts(tmp_path)
    assert attempts.begin(3) == 1 and len(attempts.session) == 16


def test_a_session_can_be_saved_before_the_first_round(tmp_path: Path) -> None:
    first = Attempts(tmp_path)
    first.keep()
    again = Attempts(tmp_path)
    assert again.session == first.session and again.begin(1) == 1
