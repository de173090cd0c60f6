"""Prepares the standard streams for any text, also when they are closed or accept only ASCII."""

from __future__ import annotations

import codecs
import os
import sys
import unicodedata

PLAIN = {"\u2026": "...", "\u00b1": "+-", "\u00d7": "x", "\u2013": "-", "\u2014": "-", "\u00b7": "-", "\u2192": "->"}
PLAIN |= {"\u2264": "<=", "\u2265": ">=", "\u2588": "#", "\u2713": "yes", "\u2717": "no"}


def settle_streams() -> None:
    """Opens closed standard streams, and replaces characters that the encoding of a stream cannot represent."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # otherwise the next opened file gets this number and receives the output
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="fedreid_pl")


def flush(code: int) -> int:
    """Flushes stdout and returns the exit code: `code`, or 2 in place of 0 if the output cannot be written."""
    try:
        sys.stdout.flush()
    except OSError as error:  # closed pipe or full disk
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if not isinstance(error, BrokenPipeError):
            print(f"error: the output cannot be written ({error.strerror})", file=sys.stderr)
        return code or 2
    except ValueError:  # this process closed stdout
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
