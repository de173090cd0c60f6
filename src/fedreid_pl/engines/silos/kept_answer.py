"""Saves the last answer of a silo to each kind of job: if a job arrives again, the silo sends the same bytes."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from fedreid_pl.engines.silos.payload import BadPayload, Envelope, Payload
from fedreid_pl.federation.storage import write_text


@dataclass(frozen=True)
class Turn:
    """Identifies the job that was answered last.

    Args:
        job: digest of the job's payload.
        session, round, attempt: session, round and attempt of the job.
    """

    job: str
    session: str
    round: int
    attempt: int


class KeptAnswer:
    """The files `answer-KIND.safetensors` and `answer-KIND.json` in a session's folder.

    Args:
        folder: folder of the session.
        kind: kind of the jobs, `fit` or `evaluate`. The update of a round stays while its models are evaluated.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.file, self.note = folder / f"answer-{kind}.safetensors", folder / f"answer-{kind}.json"

    def keep(self, turn: Turn, written: Payload) -> Payload:
        """Moves a new answer into the session's folder; returns the payload at its new path."""
        self.note.unlink(missing_ok=True)  # after a kill between these steps, the silo repeats the job
        os.replace(written.path, self.file)
        write_text(self.note, json.dumps({"turn": asdict(turn), "envelope": asdict(written.envelope)}) + "\n")
        return Payload(self.file, written.envelope)

    def last(self) -> tuple[Turn, Payload] | None:
        """Returns the last answered job and its answer, `None` if no complete answer is saved."""
        try:
            found = json.loads(self.note.read_text(encoding="utf-8"))
            turn, envelope = Turn(**found["turn"]), Envelope(**found["envelope"])
            if (
                self.file.stat().st_size != envelope.size
                or type(turn.round) is not int
                or type(turn.attempt) is not int
            ):
                return None
        except (OSError, ValueError, LookupError, TypeError, RecursionError, BadPayload):
            return None
        return turn, Payload(self.file, envelope)
