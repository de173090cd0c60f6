"""Reads the values of keys from text by the type that the schema defines; untyped values follow YAML 1.2.

The rules of YAML 1.1, in which `on`, `010`, `1_0` and `12:30` are a flag and three numbers, do not apply:

| text | whole number, number, flag | path | other text |
|---|---|---|---|
| `null`, `None` | no value, if the key allows that | no value, if the key allows that | no value, if allowed |
| `~` | no value, if the key allows that | the home folder | no value, if the key allows that |
| `032` | 32 | the name 032 | the text 032 |
| `???`, `#run1`, `${x}` | refused | the name | the text |
"""

from __future__ import annotations

import math
import os
import re
import types
import unicodedata
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

NULLS = ("null", "Null", "NULL", "None")
FLAGS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
WHOLE = re.compile(r"[-+]?[0-9]+", re.ASCII)
NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
SPECIAL = {".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf, ".nan": math.nan}
MOST_DIGITS = 300  # longest whole number; Python raises its own error for far longer ones


class Scalar(NamedTuple):
    """A single value as written: its text, and whether it is in quotes in a YAML file."""

    text: str
    quoted: bool = False


def typed(value: Any, kind: Any, path: bool = False) -> Any:
    """Returns a value of type `kind`, read from a `Scalar`, or from a list or mapping of `Scalar` objects.

    Args:
        value: the value as written: nested lists and mappings with `Scalar` leaves.
        kind: `str`, `int`, `float`, `bool`, `list[...]`, `Any`, or one of them `| None`.
        path: whether the text is a path, in which a leading `~` means a home folder.

    Raises:
        ValueError: if the text does not match the type; the message states what was expected.

    >>> typed(Scalar("032"), int), typed(Scalar("032"), str), typed(Scalar("null"), int | None)
    (32, '032', None)
    """
    members = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    if len(members) > 1:
        if isinstance(value, Scalar) and not value.quoted and _is_null(value.text, path):
            return None
        kind = next(member for member in members if member is not type(None))
    if kind is Any:
        return _untyped(value)
    if get_origin(kind) is list or kind is list:
        if not isinstance(value, list):
            raise ValueError("expected a list, [ONE,TWO]")
        item = (get_args(kind) or (Any,))[0]
        if item is str and not all(isinstance(one, Scalar) for one in value):
            raise ValueError("expected a list of names, [ONE,TWO]")
        return [typed(one, item) for one in value]
    if not isinstance(value, Scalar):
        raise ValueError(f"expected {_expected(kind)}, found a {'list' if isinstance(value, list) else 'section'}")
    if kind is str:
        return os.path.expanduser(_plain_text(value.text)) if path else _plain_text(value.text)
    return _number(value.text.strip(), kind)


def fitting(value: Any, kind: Any) -> Any:
    """Returns a plain value converted to the type `kind`; a whole number is valid as a `float`.

    Raises:
        ValueError: if the value has another type; the message states what was expected.

    >>> fitting(1, float | None), fitting(None, float | None), fitting("a", Literal["a", "b"])
    (1.0, None, 'a')
    """
    if get_origin(kind) in (Union, types.UnionType):
        if value is None and type(None) in get_args(kind):
            return None
        kind = next(member for member in get_args(kind) if member is not type(None))
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(f"must be one of {', '.join(map(str, get_args(kind)))}")
        return value
    if get_origin(kind) is list:
        if not isinstance(value, list):
            raise ValueError("expected a list, such as [a, b]")
        return [fitting(item, *get_args(kind)) for item in value]
    if kind is float and type(value) is int:
        return float(value)
    if kind in (bool, int, float) and isinstance(value, str):
        return _number(value.strip(), kind)
    if kind is str and isinstance(value, bool | int | float):
        raise ValueError("expected text; write the value in quotes, '\"" + str(value) + "\"'")
    if kind in (bool, int, float, str) and type(value) is not kind:
        raise ValueError(f"expected {_expected(kind)}")
    return value


def plain(text: str) -> Any:
    """Returns the value of an unquoted text without a type by the core rules of YAML 1.2; whole numbers are decimal.

    >>> [plain(text) for text in ("032", "1e-3", "true", "on", "1_0", "0x10", "null")]
    [32, 0.001, True, 'on', '1_0', '0x10', None]
    """
    if text in (*NULLS, "~", ""):
        return None
    if text in FLAGS:
        return FLAGS[text]
    if WHOLE.fullmatch(text) and len(text) <= MOST_DIGITS:
        return _number(text, int)
    if (NUMBER.fullmatch(text) and not WHOLE.fullmatch(text)) or text.lower() in SPECIAL:
        return _number(text, float)
    return _plain_text(text)


def whole_number(text: str) -> int | None:
    """Returns the whole number, at least 0, that a text of decimal digits states; `None` for any other text.

    >>> whole_number("032"), whole_number("-1"), whole_number("two"), whole_number("9" * 5000)
    (32, None, None, None)
    """
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS else None


def _is_null(text: str, path: bool) -> bool:
    return text in (*NULLS, "") or (text == "~" and not path)


def _untyped(value: Any) -> Any:
    if isinstance(value, Scalar):
        return _plain_text(value.text) if value.quoted else plain(value.text)
    if isinstance(value, Mapping):
        return {name: _untyped(item) for name, item in value.items()}
    return [_untyped(item) for item in value]


def _number(text: str, kind: Any) -> Any:
    if kind is bool and text in FLAGS:
        return FLAGS[text]
    if kind is int and WHOLE.fullmatch(text):
        if len(text) > MOST_DIGITS:
            raise ValueError(f"a whole number has at most {MOST_DIGITS} digits")
        return int(text)
    if kind is float and NUMBER.fullmatch(text):
        return float(text)
    if kind is float and text.lower() in SPECIAL:
        return SPECIAL[text.lower()]
    raise ValueError(f"expected {_expected(kind)}")


def _expected(kind: Any) -> str:
    names = {
        int: "a whole number in decimal digits",
        float: "a number, such as 0.05 or 5e-2",
        bool: "true or false",
        str: "text",
    }
    return names.get(kind, str(kind))


def _plain_text(text: str) -> str:
    if any(unicodedata.category(mark) in ("Cc", "Zl", "Zp") for mark in text):
        raise ValueError("contains a line break or another control character")
    if any(unicodedata.category(mark) == "Cs" for mark in text):
        raise ValueError("is not valid UTF-8")
    return text
