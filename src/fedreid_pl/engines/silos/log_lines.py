"""The log of a coordinator or a silo as JSON, one object a line: what happened, never whose picture or which file."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, TextIO

from fedreid_pl.errors import FedReIDError, printable

FIELDS = ("time", "level", "event", "federation", "silo", "round", "attempt", "kind", "bytes", "seconds", "reason")
"""Fields of a line, in this order; those that an event does not have are left out."""
LOGS = ("text", "json")
Emit = Callable[..., None]


@dataclass
class JsonLog:
    """Writes events.

    Args:
        federation: number of the federation.
        silo: name of the silo whose log it is; empty at the coordinator.
        stream: where lines go; `None`: stderr.
    """

    federation: str
    silo: str = ""
    stream: TextIO | None = None

    def __call__(self, event: str, level: str = "info", **values: Any) -> None:
        """Writes one line.

        Args:
            event: what happened, in a word.
            level: `info`, `warning` or `error`.
            values: of `FIELDS`; a `reason` is the kind of an error or a word of the protocol, never free text.
        """
        known = {"time": _now(), "level": level, "event": event, "federation": self.federation, "silo": self.silo}
        known |= values
        known["reason"] = reason_word(known.get("reason", ""))
        line = {name: known[name] for name in FIELDS if known.get(name) not in (None, "")}
        print(json.dumps(line), file=self.stream or sys.stderr, flush=True)


def quiet(event: str, level: str = "info", **values: Any) -> None:
    """Writes nothing: who reads lines for people gets those."""


def reason_word(reason: object) -> str:
    """Returns a reason if it is a word, such as the kind of an error or a key of the policy; else `other`.

    Free text may name a file, a picture or a person, so none gets into a log.

    >>> reason_word("RejectedJob"), reason_word("policy.rounds_at_most"), reason_word("no such file /pictures/0001.jpg")
    ('RejectedJob', 'policy.rounds_at_most', 'other')
    """
    text = str(reason)
    return text if re.fullmatch(r"(policy\.)?[A-Za-z_]{0,60}", text) else "other"


def take_log(words: Sequence[str]) -> tuple[bool, list[str]]:
    """Returns whether `log=json` is among the words, and the other words.

    Raises:
        FedReIDError: for another value.

    >>> take_log(["exp=fedpav", "log=json"])
    (True, ['exp=fedpav'])
    """
    values = [word.partition("=")[2] for word in words if word.startswith("log=")]
    if wrong := [value for value in values if value not in LOGS]:
        raise FedReIDError(f"log={printable(wrong[0])}: must be text or json")
    return values[-1:] == ["json"], [word for word in words if not word.startswith("log=")]


@contextmanager
def errors_as_events(emit: Emit | None) -> Iterator[None]:
    """Writes how a service ends: an error as its kind, since its words may name files.

    Args:
        emit: writes events; `None`: nothing is written.
    """
    try:
        yield
    except BaseException as error:
        if emit is not None:
            emit("ended", level="error", reason=type(error).__name__)
        raise


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
