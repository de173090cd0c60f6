"""Converts other spellings of settings, such as `--rounds 3` and `exp = fedpav`, to `key=value`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from fedreid_pl.errors import FedReIDError

KEY = r"[A-Za-z_][\w.-]*"


def as_words(typed: Sequence[str]) -> list[str]:
    """Returns the words with every setting in the form `key=value`; other words do not change.

    Raises:
        FedReIDError: if a word is ambiguous; the message states the word to type.

    >>> as_words(["--rounds", "3", "--batch-size=16", "exp", "=", "fedpav", "seed=1"])
    ['rounds=3', 'batch_size=16', 'exp=fedpav', 'seed=1']
    """
    words: list[str] = []
    waiting = list(typed)
    while waiting:
        word = waiting.pop(0)
        if re.match(rf"--{KEY}", word):
            words.append(_option(word, waiting))
        elif re.fullmatch(KEY, word) and waiting[:1] == ["="] and len(waiting) > 1:
            words.append(f"{word}={waiting[1]}")
            del waiting[:2]
        elif re.fullmatch(KEY, word) and waiting and re.match("=.", waiting[0]):
            words.append(word + waiting.pop(0))
        elif re.fullmatch(f"{KEY}=", word) and waiting and "=" not in waiting[0] and not waiting[0].startswith("-"):
            raise FedReIDError(f"'{word} {waiting[0]}': write {word}{waiting[0]}, without a space")
        elif re.match(r"-[A-Za-z]", word) and not Path(word).exists():
            raise FedReIDError(f"'{word}': options with a dash are not supported; write key=value, such as rounds=30")
        elif (colon := re.match(rf"({KEY}):(.*)", word)) and "=" not in word and not Path(word).exists():
            value = colon[2] or (waiting[0] if waiting else "VALUE")
            raise FedReIDError(f"'{word}': write {colon[1]}={value.strip()}")
        else:
            words.append(word)
    return words


def _option(word: str, waiting: list[str]) -> str:
    """Returns `key=value` for the option `--key=value`, or for `--key` and the word after it."""
    name, equals, value = word[2:].partition("=")
    key = name.replace("-", "_")
    if equals:
        return f"{key}={value}"
    if not waiting or waiting[0].startswith("--") or re.match(f"{KEY}=", waiting[0]):
        raise FedReIDError(f"'{word}': has no value; write {key}=VALUE")
    return f"{key}={waiting.pop(0)}"
