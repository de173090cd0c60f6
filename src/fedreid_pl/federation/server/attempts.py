"""Saves the session of a run and the number of the attempt before jobs are sent."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from fedreid_pl.federation.storage import write_text

NAME = "attempt.json"


class Attempts:
    """Gives every job an attempt number that never decreases, even if a killed server returns to an earlier round.

    If the server repeats a round after a kill, the attempt stays the same: the jobs are equal, and an answer to the
    earlier job also answers the repeated job. The attempt increases if the server asks clients of a round again, or
    returns to a round although a later round has started.

    Args:
        folder: folder of the file `attempt.json`; `None` keeps the numbers in memory only.
        writable: `False` on processes other than the first.

    Attributes:
        session: sixteen hexadecimal digits, drawn when a run starts. They do not influence any result of the run.
    """

    def __init__(self, folder: Path | None = None, writable: bool = True) -> None:
        self.path = folder / NAME if folder is not None and writable else None
        self.session, self.round, self.attempt = secrets.token_hex(8), 0, 1
        known = self._read()
        if known is not None:
            self.session, self.round, self.attempt = known

    def keep(self) -> None:
        """Saves the session before the server sends it to anyone."""
        self._set(self.round, self.attempt)

    def begin(self, round: int) -> int:
        """Saves that a round starts; returns its attempt."""
        return self._set(round, self.attempt + (round < self.round))

    def again(self) -> int:
        """Saves that the server asks clients of the round again; returns the attempt of these jobs."""
        return self._set(self.round, self.attempt + 1)

    def _set(self, round: int, attempt: int) -> int:
        self.round, self.attempt = round, attempt
        if self.path is not None:
            write_text(self.path, json.dumps({"session": self.session, "round": round, "attempt": attempt}) + "\n")
        return attempt

    def _read(self) -> tuple[str, int, int] | None:
        """Returns session, round and attempt of the file; `None`, and thus a new session, if it cannot be read."""
        if self.path is None:
            return None
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            session, round, attempt = found["session"], found["round"], found["attempt"]
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return None
        fits = type(session) is str and len(session) == 16 and type(round) is type(attempt) is int
        return (session, round, attempt) if fits and round >= 0 and attempt >= 1 else None
