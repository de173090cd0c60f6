"""Standard streams that take any text: closed ones, and those of a terminal that knows ASCII alone."""

from __future__ import annotations

import codecs
import os
import sys
import unicodedata

PLAIN = {"\u2026": "...", "\u00b1": "+-", "\u00d7": "x", "\u2013": "-", "\u2014": "-", "\u00b7": "-", "\u2192": "->"}
PLAIN |= {"\u2264": "<=", "\u2265": ">=", "\u2588": "#", "\u2713": "yes", "\u2717": "no"}


def settle_streams() -> None:
    """Opens what is closed, and lets the output write what its encoding lacks in a form that it has."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file that is opened would take its place and get what is printed
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="fedreid_pl")


def flush(code: int) -> int:
    """Writes out what was printed and returns the exit code: 2 instead of 0 if the output could not be written."""
    try:
        sys.stdout.flush()
    except OSError as error:  # a reader that went away, a full disk
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if not isinstance(error, BrokenPipeError):
            print(f"error: the output cannot be written ({error.strerror})", file=sys.stderr)
        return code or 2
    except ValueError:  # closed within this process
        return code
    return code


def _in_other_marks(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    marks = error.object[error.start : error.end]
    return "".join(_plain(mark) for mark in marks), error.end


def _plain(mark: str) -> str:
    if mark in PLAIN:
        return PLAIN[mark]
    if unicodedata.category(mark) == "Cs":  # half of a file name that is not UTF-8
        return f"\\x{ord(mark) & 0xFF:02x}"
    return mark.encode("ascii", "backslashreplace").decode()


codecs.register_error("fedreid_pl", _in_other_marks)
