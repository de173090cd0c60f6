"""Values from people and files pass through OmegaConf as they are: no `${...}` in them is ever resolved."""

from __future__ import annotations

from typing import Any

_MARK, _HIDDEN = "${", "$\0{"


def hidden(value: Any) -> Any:
    """A copy of nested values in which OmegaConf sees no interpolation; `shown` gives the values back.

    >>> shown(hidden({"root": ["${oc.env:SECRET}"]}))
    {'root': ['${oc.env:SECRET}']}
    """
    return _replaced(value, _MARK, _HIDDEN)


def shown(value: Any) -> Any:
    """Gives back what `hidden` has hidden, in nested plain values."""
    return _replaced(value, _HIDDEN, _MARK)


def _replaced(value: Any, old: str, new: str) -> Any:
    if isinstance(value, str):
        return value.replace(old, new)
    if isinstance(value, dict):
        return {_replaced(key, old, new): _replaced(item, old, new) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(item, old, new) for item in value]
    return value
