"""How wide a terminal is, and text that fits it. Imports no torch, so that it can speak at once."""

from __future__ import annotations

import os
import sys
import textwrap
import unicodedata
from collections.abc import Sequence
from typing import TextIO

from fedreid_pl.errors import visible

DEFAULT = 80  # columns, of a terminal that does not know


def is_live(stream: TextIO) -> bool:
    """Whether a line on the stream can be written over: a terminal that understands control characters."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def columns(stream: TextIO) -> int | None:
    """Width of the terminal behind a stream, `None` for a file or a pipe, where lines may be of any length."""
    if not stream.isatty():
        return None
    try:
        return os.get_terminal_size(stream.fileno()).columns or DEFAULT
    except (OSError, ValueError):
        return DEFAULT


def width_of(text: str) -> int:
    """Columns that a text takes: wide characters two, combining ones none.

    >>> width_of("camera"), width_of("摄像头"), width_of("e\\u0301")
    (6, 6, 1)
    """
    return sum(
        0 if unicodedata.combining(mark) else 2 if unicodedata.east_asian_width(mark) in "WF" else 1 for mark in text
    )


def clip(text: str, width: int) -> str:
    """The text, or its beginning and an ellipsis if it is wider than `width` columns.

    >>> clip("mini-market1501", 20), clip("mini-market1501", 8)
    ('mini-market1501', 'mini-ma…')
    """
    if width_of(text) <= width:
        return text
    while text and width_of(text) >= width:
        text = text[:-1]
    return text + "…" if width > 0 else ""


def first_that_fits(variants: Sequence[str], width: int | None) -> str:
    """The first of several wordings that fits into `width` columns; if none does, the last one, clipped.

    >>> first_that_fits(["round 3 of 30", "3 of 30", "3"], 8)
    '3 of 30'
    """
    if width is None:
        return variants[0]
    return next((text for text in variants if width_of(text) <= width), clip(variants[-1], width))


def fill(text: str, width: int | None) -> str:
    """Prose with lines of at most `width` columns; a word that is longer, such as a path, is not broken.

    >>> fill("warning: client viper is left out", 20).splitlines()
    ['warning: client', 'viper is left out']
    """
    text = visible(text, but="\n")
    if width is None:
        return text
    lines = textwrap.wrap(text, max(width, 1), break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)


_muted = False


def mute(muted: bool = True) -> None:
    """Has `say` print nothing, for services whose log is of another form."""
    global _muted
    _muted = muted


def say(text: str) -> None:
    """A line on stderr, as wide as the terminal is."""
    if _muted:
        return
    print(fill(text, columns(sys.stderr)), file=sys.stderr, flush=True)
