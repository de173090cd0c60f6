"""The last answers of a silo, kept until later jobs are answered: the same job again gets the same bytes."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from fedreid_pl.engines.silos.payload import BadPayload, Envelope, Payload
from fedreid_pl.federation.storage import write_text


@dataclass(frozen=True)
class Turn:
    """Which job was answered last.

    Args:
        job: digest of its payload.
        session, round, attempt: of the job.
    """

    job: str
    session: str
    round: int
    attempt: int


class KeptAnswer:
    """Files `answer-KIND.safetensors` and `answer-KIND.json` in a session's folder.

    Args:
        folder: of the session.
        kind: of the jobs, `fit` or `evaluate`: the update of a round is kept while its models are evaluated.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.file, self.note = folder / f"answer-{kind}.safetensors", folder / f"answer-{kind}.json"

    def keep(self, turn: Turn, written: Payload) -> Payload:
        """Takes over a file that was just written; returns the payload at its place."""
        self.note.unlink(missing_ok=True)  # a kill between the two steps leaves a job without answer, done once more
        os.replace(written.path, self.file)
        write_text(self.note, json.dumps({"turn": asdict(turn), "envelope": asdict(written.envelope)}) + "\n")
        return Payload(self.file, written.envelope)

    def last(self) -> tuple[Turn, Payload] | None:
        """Returns the last job that was answered and the answer, `None` if there is none, or only half of one."""
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
