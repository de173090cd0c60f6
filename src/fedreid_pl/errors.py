"""The one exception whose text is shown to a user as it is."""

from __future__ import annotations

import unicodedata


class FedReIDError(Exception):
    """Something the user can mend: wrong input, missing data, a full disk.

    The message is a single line that says what is wrong, where, and what to do. The command line prints it
    and exits with code 2; a traceback is never shown for it. Line breaks in the message become spaces.
    """

    def __init__(self, message: str) -> None:
        super().__init__(visible(" ".join(message.splitlines())))


def require(section: str, holds: bool, key: str, value: object, wanted: str) -> None:
    """Refuses the value of an option.

    Args:
        section: where the option stands, such as `callbacks.distillation`.
        holds: whether the value is one that can be used.
        key, value: of the option.
        wanted: what it has to be; continues "must be".

    Raises:
        FedReIDError: unless `holds`.
    """
    if not holds:
        raise FedReIDError(f"{section}.{key}={value}: must be {wanted}")


HIDDEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
"""Categories of characters that are not seen, or turn the direction of reading, or drive a terminal."""


def visible(text: str, but: str = "") -> str:
    """Text in which characters that are not seen, turn the direction of reading or drive a terminal are replaced.

    >>> visible("a\\x1b[2Jb\\u202e\\n"), visible("a\\n\\r", but="\\n")
    ('a�[2Jb��', 'a\\n�')
    """
    if text.isascii() and text.isprintable():
        return text
    hidden = {mark for mark in set(text) if unicodedata.category(mark) in HIDDEN and mark not in but}
    return "".join("\N{REPLACEMENT CHARACTER}" if mark in hidden else mark for mark in text) if hidden else text


def printable(text: str, most: int = 80) -> str:
    """Text of unknown origin for a message: control characters become `?`, and what is long is cut.

    >>> printable("a\\nb"), printable("x" * 99, most=6)
    ('a?b', 'xxx...')
    """
    plain = "".join(mark if mark.isprintable() else "?" for mark in text)
    return plain if len(plain) <= most else plain[: most - 3] + "..."


def nearest(word: str, known: list[str]) -> str:
    """`", did you mean 'x'?"` for the closest of `known`, or the list of all when none is close.

    >>> nearest("fedpaw", ["fedpav", "local"])
    ", did you mean 'fedpav'?"
    >>> nearest("zzz", ["fedpav", "local"])
    '; known: fedpav, local'
    """
    import difflib

    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f", did you mean '{close[0]}'?" if close else "; known: " + ", ".join(sorted(known))
