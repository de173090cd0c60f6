"""Answers a payload at a silo: checks it and the policy, runs the job, signs an answer, and logs each step."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from torch import Tensor

from fedreid_pl.config import Config
from fedreid_pl.engines.silos.audit import AuditLog
from fedreid_pl.engines.silos.cards import COORDINATOR
from fedreid_pl.engines.silos.kept_answer import KeptAnswer, Turn
from fedreid_pl.engines.silos.payload import (
    METRIC,
    BadPayload,
    Envelope,
    Header,
    Opened,
    Payload,
    open_payload,
    write_payload,
)
from fedreid_pl.engines.silos.policy import PolicyRefusal
from fedreid_pl.engines.silos.session import LINEAGE, Session
from fedreid_pl.engines.silos.silo_folder import LAUNCH, SiloFolder
from fedreid_pl.errors import FedReIDError, printable
from fedreid_pl.federation.client.worker import Diverged
from fedreid_pl.federation.messages import ClientJob, ClientUpdate, Plain, RejectedJob
from fedreid_pl.federation.storage import write_text

REGISTRATION = "registration.json"


class NotJoined(Exception):
    """Raised for a job of an experiment that this silo has not joined."""


class DataChanged(Exception):
    """Raised if the silo's data changed since it joined; the silo has to join again."""


FINAL = (Diverged, RejectedJob, FedReIDError, NotJoined, DataChanged)
"""Errors that occur again if the same job is repeated."""


class SiloService:
    """Answers the coordinator's payloads, one at a time, over any transport.

    Data and network stay in memory between jobs. Only the return value of `answer` leaves the silo. It contains the
    type of an error, never its message.

    Args:
        folder: folder of the silo.
        own: the silo's configuration of data and devices.
        say: prints a line for the operator.
    """

    def __init__(self, folder: SiloFolder, own: Config, say: Callable[[str], None]) -> None:
        self.folder, self.own, self.say = folder, own, say
        self.invitation, self.audit = folder.invitation, AuditLog(folder.path)
        self.session: Session | None = None
        self._sessions = folder.path / "sessions"
        folder.policy, folder.newest_launch()

    def answer(self, sent: Payload) -> Payload | None:
        """Returns the answer to a payload, `None` if the payload is not from the coordinator or is out of date.

        Args:
            sent: file and envelope of the payload; the silo may move or delete the file.
        """
        try:
            opened = open_payload(sent, self.invitation.coordinator_key)
            check_address(opened.header, self.folder)
            answer = self._experiment(opened, sent) if opened.header.kind == "experiment" else self._job(opened, sent)
        except BadPayload as error:
            self.audit.add("ignored", payload=sent.envelope.digest, reason=str(error))
            self.say(f"warning: ignored a payload: {error}")
            return None
        return answer

    # experiments

    def _experiment(self, opened: Opened, sent: Payload) -> Payload:
        header, launch = opened.header, opened.header.values.get("launch")
        newest, digest = self.folder.newest_launch()
        if type(launch) is not int or launch < newest or (launch == newest and sent.envelope.digest != digest):
            raise BadPayload("the experiment is out of date: the coordinator has started a newer one")
        folder = self._session_folder(header.session)
        new = not (folder / "experiment.json").exists()
        try:
            self.session = Session(folder, self.folder.name, self.own, opened, self.folder.policy, self.say)
        except Exception as error:  # any error refuses the experiment; its message stays here
            self.session = None
            if new:  # otherwise refused experiments would fill the disk
                shutil.rmtree(folder, ignore_errors=True)
            return self._refusal(header, sent, error)
        write_text(self.folder.path / LAUNCH, json.dumps([launch, sent.envelope.digest]) + "\n")
        kept = Payload(folder / "experiment.safetensors", sent.envelope)
        os.replace(sent.path, kept.path)
        write_text(folder / LINEAGE, self.session.lineage + "\n")
        write_text(folder / "experiment.json", json.dumps(asdict(sent.envelope)) + "\n")
        self.audit.add("joined", experiment=header.experiment, session=header.session, payload=sent.envelope.digest)
        self.say(f"joined experiment {header.experiment[:16]}")
        told = self.session.registration()
        write_text(folder / REGISTRATION, json.dumps(told) + "\n")
        return self._written(folder, reply_to(header, self.folder, "joined", sent, told))

    def _refusal(self, header: Header, sent: Payload, error: Exception) -> Payload:
        reason = f"policy.{error.key}" if isinstance(error, PolicyRefusal) else type(error).__name__
        self.audit.add(
            "refused", experiment=header.experiment, payload=sent.envelope.digest, reason=str(error), word=reason
        )
        self.say(f"experiment {header.experiment[:16]} is refused: {error}")
        return self._written(self._sessions, reply_to(header, self.folder, "refused", sent, {"reason": reason}))

    def _session_folder(self, name: str) -> Path:
        """Returns the folder of a session. `Header` has checked that the name is 16 hexadecimal digits."""
        self._sessions.mkdir(parents=True, exist_ok=True)
        return self._sessions / name

    # jobs

    def _job(self, opened: Opened, sent: Payload) -> Payload:
        header, envelope = opened.header, sent.envelope
        folder = self._session_folder(header.session)
        if not (folder / "experiment.json").exists():
            unknown = NotJoined("the job belongs to an experiment that this silo has not joined")
            return self._failed(header, sent, self._sessions, unknown)
        kept = {kind: KeptAnswer(folder, kind) for kind in ("fit", "evaluate")}
        last = [found for answer in kept.values() if (found := answer.last()) is not None]
        for turn, answer in last:
            if turn.job == envelope.digest:
                self.audit.add("sent again", payload=envelope.digest, answer=answer.envelope.digest)
                return answer
        newest = max(((turn.attempt, turn.round) for turn, _ in last), default=(0, 0))
        if (header.attempt, header.round) < newest:
            raise BadPayload(
                f"the job of round {header.round}, attempt {header.attempt} is out of date: this silo has already "
                f"answered round {newest[1]}, attempt {newest[0]}"
            )
        self.say(f"round {header.round}: {header.kind}")
        answer, done = self._done(opened, sent, folder)
        if not done:  # a refused or failed job has no effect on later jobs
            return answer
        turn = Turn(envelope.digest, header.session, header.round, header.attempt)
        return kept[header.kind].keep(turn, answer)

    def _joined(self, header: Header, folder: Path) -> Session:
        """Returns the session of a job; after a restart, loads it again from the saved experiment."""
        session = self.session
        if session is None or session.header.session != header.session:
            session = self._joined_again(folder)
        if session.header.experiment != header.experiment:
            raise NotJoined("the job belongs to another experiment than the one that this silo has joined")
        self.session = session
        return session

    def _joined_again(self, folder: Path) -> Session:
        try:
            envelope = Envelope(**json.loads((folder / "experiment.json").read_text(encoding="utf-8")))
            opened = open_payload(Payload(folder / "experiment.safetensors", envelope), self.invitation.coordinator_key)
        except (OSError, ValueError, TypeError, BadPayload) as error:
            raise NotJoined("the job belongs to an experiment that this silo has not joined") from error
        if envelope.digest != self.folder.newest_launch()[1]:
            raise NotJoined("the job belongs to an experiment that a newer one has replaced at this silo")
        session = Session(folder, self.folder.name, self.own, opened, self.folder.policy, self.say)
        self._check_same_data(folder, session)
        self.audit.add("resumed", experiment=opened.header.experiment, session=opened.header.session)
        return session

    def _check_same_data(self, folder: Path, session: Session) -> None:
        """Checks that client, images and test sets are those that the silo joined with: they decide its weight.

        Raises:
            DataChanged: if one of them differs.
        """
        try:
            before = json.loads((folder / REGISTRATION).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # written by an earlier version, or lost
            before = {}
        now = session.registration()
        changed = [name for name in ("client", "images", "tests") if before.get(name, now[name]) != now[name]]
        if changed:
            raise DataChanged(
                f"this silo joined with {before.get('images')} training images, and the number is "
                f"{now['images']} now; it joins again"
            )

    def _done(self, opened: Opened, sent: Payload, folder: Path) -> tuple[Payload, bool]:
        """Runs a job; returns the answer and whether it is an update."""
        header = opened.header
        try:
            session, policy = self._joined(header, folder), self.folder.policy
            policy.check(session.config, session.silos)  # the policy may have changed since the silo joined
            update = session.do(_job_of(opened, session.client), policy)
            reply = reply_to(
                header, self.folder, "update", sent, {"num_samples": update.num_samples, **_numbers(update)}
            )
            answer = self._written(folder, reply, update.backbone, update.extras)
        except Exception as error:  # any error becomes a failure; its message stays here
            return self._failed(header, sent, folder, error), False
        if header.kind == "fit":  # the next model is compared with this one
            session.note_job(sent)
        note = {"round": header.round, "attempt": header.attempt, "session": header.session, "kind": header.kind}
        note |= {"job": sent.envelope.digest, "answer": answer.envelope.digest, "bytes": answer.envelope.size}
        self.audit.add("update", **note, tensors=[*update.backbone, *update.extras], numbers=sorted(update.metrics))
        return answer, True

    def _failed(self, header: Header, sent: Payload, folder: Path, error: Exception) -> Payload:
        kind = type(error).__name__
        self.audit.add(
            "failed", payload=sent.envelope.digest, reason=kind, words=printable(str(error), 500), **_address(header)
        )
        self.say(f"round {header.round}: {header.kind} failed: {kind}: {printable(str(error), 500)}")
        values: dict[str, Plain] = {"reason": kind, "final": isinstance(error, FINAL)}
        return self._written(folder, reply_to(header, self.folder, "failure", sent, values))

    def _written(
        self,
        folder: Path,
        header: Header,
        backbone: Mapping[str, Tensor] | None = None,
        extras: Mapping[str, Tensor] | None = None,
    ) -> Payload:
        target = folder / "next.safetensors"
        target.unlink(missing_ok=True)
        return write_payload(target, header, self.folder.key, backbone, extras)


def check_address(header: Header, folder: SiloFolder) -> None:
    """Checks that a payload comes from the coordinator and is for this silo.

    Raises:
        BadPayload: if it is not; the message gives the reason.
    """
    wanted = (COORDINATOR, folder.name, folder.invitation.federation)
    if (header.sender, header.addressee, header.federation) != wanted:
        raise BadPayload("the payload is for another silo, or from another federation")
    if header.kind not in ("experiment", "fit", "evaluate"):
        raise BadPayload(f"the payload is of kind {header.kind}; a coordinator sends experiment, fit or evaluate")
    if header.kind == "experiment" and (header.round, header.attempt) != (0, 1):
        raise BadPayload("an experiment must have round 0 and attempt 1")


def reply_to(header: Header, folder: SiloFolder, kind: str, sent: Payload, values: Mapping[str, Plain]) -> Header:
    """Returns the header of a silo's answer to a payload."""
    reply = replace(header, kind=kind, sender=folder.name, addressee=COORDINATOR)
    return replace(reply, answers=sent.envelope.digest, values=dict(values))


def _address(header: Header) -> dict[str, Plain]:
    return {"round": header.round, "attempt": header.attempt, "kind": header.kind}


def _numbers(update: ClientUpdate) -> dict[str, Plain]:
    return {METRIC + name: value for name, value in update.metrics.items()}


def _job_of(opened: Opened, client: str) -> ClientJob:
    header = opened.header
    address = (header.kind, header.session, header.round, header.attempt, client)
    try:
        backbone = dict(opened.backbone)
        return ClientJob(*address, backbone, tuple(backbone), dict(header.values), dict(opened.extras))
    except TypeError as error:
        raise RejectedJob(str(error)) from error
