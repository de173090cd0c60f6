"""The session of a run and the number of the attempt, saved before jobs go out."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from fedreid_pl.federation.storage import write_text

NAME = "attempt.json"


class Attempts:
    """Gives every job a number that never falls, also when the server is killed and goes back.

    A round that is repeated after a kill has the attempt that it had before: its jobs are the same, and an answer to
    the earlier one is an answer to it. A round that is asked again, or to which the server goes back although it has
    begun a later one, gets the next attempt.

    Args:
        folder: where the file `attempt.json` is kept; `None`: in memory only.
        writable: `False` on processes other than the first.

    Attributes:
        session: sixteen hexadecimal digits that are drawn when a run is begun; they change no number of the run.
    """

    def __init__(self, folder: Path | None = None, writable: bool = True) -> None:
        self.path = folder / NAME if folder is not None and writable else None
        self.session, self.round, self.attempt = secrets.token_hex(8), 0, 1
        known = self._read()
        if known is not None:
            self.session, self.round, self.attempt = known

    def keep(self) -> None:
        """Saves the session before anybody else is told of it."""
        self._set(self.round, self.attempt)

    def begin(self, round: int) -> int:
        """Saves that a round begins; returns its attempt."""
        return self._set(round, self.attempt + (round < self.round))

    def again(self) -> int:
        """Saves that clients of the round are asked once more; returns the attempt of these jobs."""
        return self._set(self.round, self.attempt + 1)

    def _set(self, round: int, attempt: int) -> int:
        self.round, self.attempt = round, attempt
        if self.path is not None:
            write_text(self.path, json.dumps({"session": self.session, "round": round, "attempt": attempt}) + "\n")
        return attempt

    def _read(self) -> tuple[str, int, int] | None:
        """What the file says, `None` if there is no file that can be read: the run goes on as a new session."""
        if self.path is None:
            return None
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            session, round, attempt = found["session"], found["round"], found["attempt"]
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return None
        fits = type(session) is str and len(session) == 16 and type(round) is type(attempt) is int
        return (session, round, attempt) if fits and round >= 0 and attempt >= 1 else None
