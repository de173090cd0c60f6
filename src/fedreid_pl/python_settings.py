"""Converts the arguments of a call from Python to the words of a command line."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedreid_pl.errors import FedReIDError, printable


def words_of(exp: str | Path, data: str | Path | None, settings: Mapping[str, Any]) -> list[str]:
    """Returns the words `exp=EXP data=DATA KEY=VALUE ...`.

    Raises:
        FedReIDError: if an argument has a type that no setting has.
    """
    words = [f"exp={_name(exp, 'exp', 'an experiment')}"]
    if data is not None:
        words.append(f"data={_name(data, 'data', 'a data configuration')}")
    return words + setting_words(settings)


def setting_words(settings: Mapping[str, Any]) -> list[str]:
    """Returns the word `KEY=VALUE` of each setting."""
    return [f"{key}={as_word(value)}" for key, value in settings.items()]


def as_word(value: Any) -> str:
    """Returns a Python value in the notation of the command line.

    Raises:
        FedReIDError: for a value that is no text, path, number, flag, list or dictionary.

    >>> [as_word(value) for value in (None, True, 0.01, "cuda", ["a", "b"], Path("runs"))]
    ['null', 'true', '0.01', 'cuda', '["a", "b"]', 'runs']
    """
    if isinstance(value, str):
        return value
    if isinstance(value, (Mapping, list, tuple, bool, type(None))):
        return json.dumps(value, default=_plain)
    return str(value) if isinstance(value, (int, float)) else as_word(_plain(value))


def folder_of(value: str | Path) -> Path:
    """Returns the path of a run folder with the home folder in place of `~`.

    Raises:
        FedReIDError: if the value is neither a text nor a path.
    """
    if not isinstance(value, str | os.PathLike):
        raise FedReIDError(f"{printable(repr(value))}: expected the path of a run folder, got {type(value).__name__}")
    return Path(os.path.expanduser(value))


def _name(value: str | Path, key: str, what: str) -> str:
    if not isinstance(value, str | os.PathLike):
        raise FedReIDError(f"{key}={printable(repr(value))}: expected the name of {what}, or the path of a YAML file")
    return os.fspath(value)


def _plain(value: Any) -> Any:
    """Returns a path as text, and the number in an array or tensor of one number."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return value.item()
    raise FedReIDError(
        f"{printable(repr(value))}: a setting is a text, a number, a flag, a list or a dictionary, not "
        f"{type(value).__name__}"
    )
