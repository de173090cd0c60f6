"""Measures the width of a terminal, and fits text into it. Imports no torch, so that it can print at once."""

from __future__ import annotations

import os
import sys
import textwrap
import unicodedata
from collections.abc import Sequence
from typing import TextIO

from fedreid_pl.errors import visible

DEFAULT = 80  # columns of a terminal of unknown width


def is_live(stream: TextIO) -> bool:
    """Returns whether a line on the stream can be overwritten: a terminal that supports control characters."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def columns(stream: TextIO) -> int | None:
    """Returns the width of the terminal behind a stream, `None` for a file or a pipe, whose lines have no limit."""
    if not stream.isatty():
        return None
    try:
        return os.get_terminal_size(stream.fileno()).columns or DEFAULT
    except (OSError, ValueError):
        return DEFAULT


def width_of(text: str) -> int:
    """Returns the number of columns of a text: wide characters take two, combining characters none.

    >>> width_of("camera"), width_of("摄像头"), width_of("e\\u0301")
    (6, 6, 1)
    """
    return sum(
        0 if unicodedata.combining(mark) else 2 if unicodedata.east_asian_width(mark) in "WF" else 1 for mark in text
    )


def clip(text: str, width: int) -> str:
    """Returns the text, or its beginning and an ellipsis if the text is wider than `width` columns.

    >>> clip("mini-market1501", 20), clip("mini-market1501", 8)
    ('mini-market1501', 'mini-ma…')
    """
    if width_of(text) <= width:
        return text
    while text and width_of(text) >= width:
        text = text[:-1]
    return text + "…" if width > 0 else ""


def first_that_fits(variants: Sequence[str], width: int | None) -> str:
    """Returns the first of several texts that fits into `width` columns; if none fits, the last one, clipped.

    >>> first_that_fits(["round 3 of 30", "3 of 30", "3"], 8)
    '3 of 30'
    """
    if width is None:
        return variants[0]
    return next((text for text in variants if width_of(text) <= width), clip(variants[-1], width))


def fill(text: str, width: int | None) -> str:
    """Breaks prose into lines of at most `width` columns; longer words, such as paths, are not broken.

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
    """Turns the output of `say` off or on, for services that write another form of log."""
    global _muted
    _muted = muted


def say(text: str) -> None:
    """Prints a line to stderr, fitted to the width of the terminal."""
    if _muted:
        return
    print(fill(text, columns(sys.stderr)), file=sys.stderr, flush=True)
