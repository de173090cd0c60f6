"""Defines `FedReIDError`, the exception whose text is printed to the user, and functions for its messages."""

from __future__ import annotations

import unicodedata


class FedReIDError(Exception):
    """Raised for every error that the user can correct, such as wrong input, missing data or a full disk.

    The message is a single line that states what is wrong, where, and what to do. The command line prints the message
    without a traceback and exits with code 2. Line breaks in the message become spaces.
    """

    def __init__(self, message: str) -> None:
        super().__init__(visible(" ".join(message.splitlines())))


def require(section: str, holds: bool, key: str, value: object, wanted: str) -> None:
    """Raises an error unless the value of an option is valid.

    Args:
        section: section of the option, such as `callbacks.distillation`.
        holds: whether the value is valid.
        key, value: name and value of the option.
        wanted: the valid values; continues "must be" in the message.

    Raises:
        FedReIDError: if `holds` is `False`.
    """
    if not holds:
        raise FedReIDError(f"{section}.{key}={value}: must be {wanted}")


MOST_NAMES = 100
"""Largest number of names that a message lists."""

HIDDEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
"""Unicode categories of characters that are invisible, change the reading direction, or control a terminal."""


def visible(text: str, but: str = "") -> str:
    """Returns the text with invisible, direction and terminal control characters replaced, except those in `but`.

    >>> visible("a\\x1b[2Jb\\u202e\\n"), visible("a\\n\\r", but="\\n")
    ('a�[2Jb��', 'a\\n�')
    """
    if text.isascii() and text.isprintable():
        return text
    hidden = {mark for mark in set(text) if unicodedata.category(mark) in HIDDEN and mark not in but}
    return "".join("\N{REPLACEMENT CHARACTER}" if mark in hidden else mark for mark in text) if hidden else text


def printable(text: str, most: int = 80) -> str:
    """Returns untrusted text for a message: control characters become `?`, and long text is cut to `most` characters.

    >>> printable("a\\nb"), printable("x" * 99, most=6)
    ('a?b', 'xxx...')
    """
    plain = "".join(mark if mark.isprintable() else "?" for mark in text)
    return plain if len(plain) <= most else plain[: most - 3] + "..."


def counted(number: int, noun: str) -> str:
    """Returns a number with its noun, which gets an s unless the number is 1.

    >>> counted(1, "picture"), counted(1200, "picture")
    ('1 picture', '1,200 pictures')
    """
    return f"{number:,} {noun}{'s' * (number != 1)}"


def nearest(word: str, known: list[str]) -> str:
    """Returns `", did you mean 'x'?"` for the closest name in `known`, or the list of all names if none is close.

    Of more than `MOST_NAMES` names it lists the first three.

    >>> nearest("fedpaw", ["fedpav", "local"])
    ", did you mean 'fedpav'?"
    >>> nearest("zzz", ["fedpav", "local"])
    '; known: fedpav, local'
    """
    import difflib

    close = difflib.get_close_matches(str(word), known, n=1, cutoff=0.6)
    if close:
        return f", did you mean '{close[0]}'?"
    names = sorted(known)
    if len(names) > MOST_NAMES:
        return f"; {len(names):,} names are known, such as {', '.join(names[:3])}"
    return "; known: " + ", ".join(names)
