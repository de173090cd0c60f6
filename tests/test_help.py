"""The help of each command lists the words that the command accepts."""

from __future__ import annotations

import re

import pytest

from fedreid_pl.cli import COMMANDS, main
from fedreid_pl.commands import embed, export, search, study
from fedreid_pl.commands.help_texts import TEXTS
from fedreid_pl.comparison import plan, sweep_plan
from fedreid_pl.config import describe


def printed(capsys: pytest.CaptureFixture, *words: str) -> str:
    assert main(words) == 0
    return str(capsys.readouterr().out)


def test_the_overview_has_a_line_for_every_command(capsys: pytest.CaptureFixture) -> None:
    text = printed(capsys, "--help")
    assert text == printed(capsys) == printed(capsys, "help")
    for command in COMMANDS:
        assert re.search(rf"^  {command} +[A-Z].*\.$", text, re.MULTILINE), command
    assert set(COMMANDS) <= set(TEXTS)


@pytest.mark.parametrize("command", TEXTS)
def test_a_command_has_its_own_help(command: str, capsys: pytest.CaptureFixture) -> None:
    text = printed(capsys, *command.split(), "--help")
    assert text.startswith(TEXTS[command].splitlines()[0]) and text.count("Usage:") <= 1
    assert f"fedreid-pl {command}" in text
    assert all(len(line) <= 120 for line in TEXTS[command].splitlines())
    assert printed(capsys, "help", *command.split()) == text
    assert printed(capsys, *command.split(), "word", "-h") == text


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("embed", embed.EMBED),
        ("search", search.SEARCH),
        ("export", export.EXPORT),
        ("study", study.OPTIONS),
        ("compare", plan.OPTIONS),
        ("sweep", sweep_plan.OPTIONS),
        ("evaluate", ("run", "checkpoint", "splits", "rerank")),
        ("train", ("dry_run", "log")),
    ],
)
def test_every_option_is_described(command: str, words: tuple[str, ...]) -> None:
    for word in words:
        assert re.search(rf"^  {re.escape(word)}=\S*\s+\S", TEXTS[command], re.MULTILINE), word


def test_the_help_of_train_lists_every_key_and_fits_a_terminal() -> None:
    from fedreid_pl.commands.help import help_of, keys_text

    text = help_of("train")
    for key, _, _ in describe():
        assert f"\n  {key} " in text, key
    narrow = keys_text(80).splitlines()
    assert max(map(len, narrow)) <= 80 and len(narrow) > len(keys_text().splitlines())
    assert " ".join(keys_text(80).split()) == " ".join(keys_text().split()), "wrapping changes no word"
