"""The log of a coordinator or a silo as JSON, one object per line, without persons, images and file names."""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TextIO

from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.storage import write_text
from fedreid_pl.reporting.terminal import mute

FIELDS = ("time", "level", "event", "federation", "silo", "round", "attempt", "kind", "bytes", "seconds", "reason")
"""Fields of a line, in this order; an event omits fields without a value."""
LAST_ERROR = "last_error.txt"
WORDS = {
    "the silo did not answer in time": "late",
    "the client did not answer": "silent",
    "the silo has left": "left",
    "the silo was revoked": "revoked",
    "the silo left before it got the job": "gone",
}
"""Maps the coordinator's reasons to words of the log."""
Emit = Callable[..., None]


@dataclass
class JsonLog:
    """Writes events.

    Args:
        federation: number of the federation.
        silo: name of the silo that writes the log; empty at the coordinator.
        stream: stream for the lines; `None` uses stderr.
    """

    federation: str
    silo: str = ""
    stream: TextIO | None = None

    def __call__(self, event: str, level: str = "info", **values: Any) -> None:
        """Writes one line.

        Args:
            event: name of the event.
            level: `info`, `warning` or `error`.
            values: values of `FIELDS`; a `reason` is the kind of an error or a word of the protocol, never free text.
        """
        known = {"time": _now(), "level": level, "event": event, "federation": self.federation, "silo": self.silo}
        known |= values
        known["reason"] = reason_word(known.pop("word", known.get("reason", "")))
        line = {name: known[name] for name in FIELDS if known.get(name) not in (None, "")}
        print(json.dumps(line), file=self.stream or sys.stderr, flush=True)


def quiet(event: str, level: str = "info", **values: Any) -> None:
    """Discards events: without `log=json` the program prints lines for people."""


def reason_word(reason: object) -> str:
    """Returns a reason if it is one word, such as the kind of an error or a key of the policy; otherwise `other`.

    Free text can name a file, a picture or a person, so the log never contains any.

    >>> reason_word("RejectedJob"), reason_word("policy.rounds_at_most"), reason_word("no such file /pictures/0001.jpg")
    ('RejectedJob', 'policy.rounds_at_most', 'other')
    """
    text = WORDS.get(str(reason), str(reason))
    return text if re.fullmatch(r"(policy\.)?[A-Za-z_]{0,60}", text) else "other"


def logged(emit: Emit, folder: Path, work: Callable[[], object]) -> int:
    """Runs a service that writes only events to stderr, and returns the exit code.

    An error's message can name files and persons: it is saved in `folder/last_error.txt`, and the log gets its kind.

    Args:
        emit: writes events.
        folder: folder of the silo or of the federation.
        work: the work of the service.
    """
    mute()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    try:
        work()
    except FedReIDError as error:
        return _ended(emit, folder, error, str(error), 2)
    except Exception as error:
        return _ended(emit, folder, error, traceback.format_exc(), 1)
    except BaseException as error:  # a signal
        emit("ended", "warning", reason=type(error).__name__)
        return 130
    finally:
        mute(False)
        logging.disable(logging.NOTSET)
    return 0


def _ended(emit: Emit, folder: Path, error: Exception, words: str, code: int) -> int:
    emit("ended", "error", reason=type(error).__name__)
    with suppress(FedReIDError, OSError):  # the event was written
        write_text(folder / LAST_ERROR, words.rstrip() + "\n")
    return code


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
