"""Protects texts from OmegaConf, which would otherwise interpret `${...}` and `???`."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

_MARKS = (("${", "$\0{"), ("???", "?\0??"))


def hidden(value: Any) -> Any:
    """Returns a copy of nested values with `${` and `???` masked for OmegaConf; `shown` restores the values.

    >>> shown(hidden({"root": ["${oc.env:SECRET}", "???"]}))
    {'root': ['${oc.env:SECRET}', '???']}
    """
    return _replaced(value, _MARKS)


def shown(value: Any) -> Any:
    """Returns nested values, or an object of a schema, with the texts that `hidden` masked restored."""
    if is_dataclass(value) and not isinstance(value, type):
        for item in fields(value):
            setattr(value, item.name, shown(getattr(value, item.name)))
        return value
    return _replaced(value, tuple((new, old) for old, new in _MARKS))


def _replaced(value: Any, marks: tuple[tuple[str, str], ...]) -> Any:
    if isinstance(value, str):
        for old, new in marks:
            value = value.replace(old, new)
        return value
    if isinstance(value, dict):
        return {_replaced(key, marks): _replaced(item, marks) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(item, marks) for item in value]
    return value
