"""One documented field of the configuration."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def key(
    default: Any,
    text: str,
    *,
    choices: tuple[str, ...] = (),
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    path: bool = False,
) -> Any:
    """Returns a dataclass field with a help text and bounds.

    Args:
        default: the default value. If it is a type, the field calls it to create the default.
        text: the help text of the key.
        choices: the allowed values; empty allows every value.
        at_least: the smallest allowed value.
        above: an exclusive lower bound.
        at_most: the largest allowed value.
        path: whether the value is a path, in which a leading `~` becomes the home folder.
    """
    limits = {"help": text, "choices": choices, "at_least": at_least, "above": above, "at_most": at_most, "path": path}
    if isinstance(default, type):  # a section, or an empty list or dict
        return field(default_factory=default, metadata=limits)
    return field(default=default, metadata=limits)
