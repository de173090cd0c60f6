"""Checks the content of a server's checkpoint before any part of it is used."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from fedreid_pl.errors import visible
from fedreid_pl.federation.server.history import LONGEST, MOST_ROUNDS, History

Check = Callable[[Any], bool]


def problem_of(state: Mapping[str, Any]) -> str | None:
    """Returns the first part of a checkpoint that the server cannot have written, `None` if all parts are valid.

    >>> problem_of({"round": -1}), problem_of({"round": 3, "assignment": {"a": "global"}})
    ("'round' is not valid", None)
    """
    for name, check in CONTENT.items():
        if name in state and not check(state[name]):
            return f"'{name}' is not valid"
    for name, columns in (("history", state.get("history")), ("costs", (state.get("costs") or {}).get("timings"))):
        if columns is not None:
            try:
                History().load_state_dict(columns)
            except ValueError as error:
                return f"'{name}': {error}"
    return None


def _is_name(value: Any) -> bool:
    return type(value) is str and 0 < len(value) <= LONGEST and visible(value) == value


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 2**53


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _by_name(check: Check) -> Check:
    return lambda value: type(value) is dict and all(_is_name(key) and check(item) for key, item in value.items())


def _all(check: Check) -> Check:
    return lambda value: type(value) is list and all(map(check, value))


def _is_costs(value: Any) -> bool:
    seconds = _by_name(lambda item: _is_number(item) and item >= 0)
    return (
        _is_count(value.get("bytes_down"))
        and _is_count(value.get("bytes_up"))
        and seconds(value.get("seconds"))
        and seconds(value.get("closed", {}))
        and type(value.get("timings", {})) is dict
    )


def _is_event(value: Any) -> bool:
    return type(value) is list and len(value) == 2 and all(map(_is_count, value))


CONTENT: dict[str, Check] = {
    "round": lambda value: type(value) is int and 0 <= value <= MOST_ROUNDS,
    "models": _by_name(_by_name(lambda value: isinstance(value, Tensor))),
    "assignment": _by_name(_is_name),
    "weights": _by_name(_is_number),
    "rejected": _by_name(_is_count),
    "rejections": _by_name(lambda value: type(value) is dict and all(map(_all(_is_count), value.values()))),
    "costs": _is_costs,
    "members": _by_name(lambda value: _all(_is_event)(value) and bool(value)),
    "callbacks": _by_name(lambda value: type(value) is dict),
    "lineage": _is_name,
    "threads": _is_count,
}
"""Check of each part's value; the server does not use parts that are not listed."""
