"""Exchanges payloads between the coordinator and its silos, and accepts only valid answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fedreid_pl.engines.silos.cards import COORDINATOR
from fedreid_pl.engines.silos.federation_folder import FederationFolder
from fedreid_pl.engines.silos.log_lines import Emit, quiet
from fedreid_pl.engines.silos.payload import BadPayload, Header, Opened, Payload, open_payload, write_payload
from fedreid_pl.engines.silos.shared import experiment_digest
from fedreid_pl.engines.silos.status import StatusFile, Traffic
from fedreid_pl.engines.silos.transport import Transport
from fedreid_pl.federation.messages import ClientJob, Plain, State

Say = Callable[[str], None]


@dataclass
class Waiting:
    """A payload that awaits its answer: a job, or an experiment if `job` is `None`."""

    digest: str
    header: Header
    job: ClientJob | None = None
    said: bool = False
    late: bool = False
    since: float = field(default_factory=time.monotonic)


class Exchange:
    """Sends signed payloads and checks the answers, one payload at a time for each silo.

    An answer is valid if the silo itself signed it, and if it answers the silo's current payload.

    Args:
        federation: folder of the federation, with its silos and the key that signs payloads.
        transport: transfers bytes to silos and back.
        session: session of the payloads.
        text: configuration that the silos receive.
        folder: folder of the payloads that wait for a silo.
        say: prints a line.

    Attributes:
        events: writes what happened to a log for programs; by default nothing is written.
    """

    def __init__(
        self,
        federation: FederationFolder,
        transport: Transport,
        session: str,
        text: str,
        folder: Path,
        say: Say | None = None,
    ) -> None:
        self.federation, self.transport, self.session, self.text = federation, transport, session, text
        self.experiment, self.folder, self.say = experiment_digest(text), folder, say or (lambda line: None)
        self.silos = federation.members
        self.traffic = {name: Traffic() for name in self.silos}
        self.round = 0
        self.events: Emit = quiet
        self._status = StatusFile(federation.path)
        self._waiting: dict[str, Waiting] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def close(self) -> None:
        """Closes the transport and deletes the payloads that wait for a silo."""
        for silo in self.traffic:
            (self.folder / f"{silo}.job.safetensors").unlink(missing_ok=True)
        self._note_status(over=True)
        self.transport.close()

    def _note_status(self, over: bool = False) -> None:
        self._status.write(self.session, self.round, self.traffic, self.transport.seen(), over)

    def _header(
        self, kind: str, silo: str, round: int = 0, attempt: int = 1, values: Mapping[str, Plain] | None = None
    ) -> Header:
        address = (COORDINATOR, silo, self.federation.number, self.experiment, self.session)
        return Header(kind, *address, round, attempt, values=dict(values or {}))

    def _post(self, silo: str, header: Header, backbone: State, extras: State, most: int) -> Waiting:
        path = self.folder / f"{silo}.job.safetensors"
        path.unlink(missing_ok=True)  # a silo that still fetches the old one has it open
        payload = write_payload(path, header, self.federation.key, backbone, extras)
        self.transport.post(silo, payload, most)
        self._waiting[silo] = Waiting(payload.envelope.digest, header)
        self.round = header.round if header.kind != "experiment" else self.round
        self.traffic[silo].down += payload.envelope.size
        self.traffic[silo].state = f"round {header.round}: {header.kind}"
        self.events("sent", silo=silo, bytes=payload.envelope.size, **_place(header))
        return self._waiting[silo]

    def _taken(self, silo: str, payload: Payload) -> tuple[Waiting | None, Opened | None]:
        """Returns the payload that was answered and the opened answer.

        The opened answer is `None` if it is invalid. Both are `None` if no payload awaits this answer.
        """
        waiting = self._waiting.get(silo)
        opened = self._opened(silo, waiting, payload) if waiting is not None and silo in self.silos else STALE
        payload.path.unlink(missing_ok=True)  # a valid answer stays mapped in memory
        if opened is STALE:
            return None, None
        self._finished(silo)
        assert waiting is not None
        self._note_answer(silo, payload, waiting, opened)
        return waiting, opened  # type: ignore[return-value]

    def _note_answer(self, silo: str, payload: Payload, waiting: Waiting, opened: Opened | object | None) -> None:
        header = opened.header if isinstance(opened, Opened) else None
        reason = "BadPayload" if header is None else header.values.get("reason", "")
        level = "warning" if reason else "info"
        seconds = round(time.monotonic() - waiting.since, 3)
        place = {**_place(waiting.header), "kind": header.kind if header is not None else ""}
        size = payload.envelope.size
        self.events("answered", level, silo=silo, bytes=size, seconds=seconds, reason=reason, **place)

    def _finished(self, silo: str) -> str:
        waiting = self._waiting.pop(silo)
        self.transport.withdraw(silo)
        self.traffic[silo].state = f"round {waiting.header.round}: {waiting.header.kind} is answered"
        return silo

    def _opened(self, silo: str, waiting: Waiting, payload: Payload) -> Opened | object | None:
        self.traffic[silo].up += payload.envelope.size
        try:
            opened = open_payload(payload, self.silos[silo].signing_key)
            if opened.header.answers != waiting.digest:
                return STALE
            self._check(silo, waiting.header, opened.header)
        except BadPayload as error:
            self.traffic[silo].refused += 1
            self.say(f"warning: silo {silo}: refused its answer: {error}")
            return None
        return opened

    def _check(self, silo: str, sent: Header, header: Header) -> None:
        if (header.sender, header.addressee, header.federation) != (silo, COORDINATOR, sent.federation):
            raise BadPayload("the answer is from another silo or federation")
        if (header.session, header.experiment) != (sent.session, sent.experiment):
            raise BadPayload("the answer belongs to another session")
        if (header.round, header.attempt) != (sent.round, sent.attempt):
            raise BadPayload("the answer belongs to another round or attempt")
        kinds = ("joined", "refused", "left") if sent.kind == "experiment" else ("update", "failure", "left")
        if header.kind not in kinds:
            raise BadPayload(f"the answer is of kind {header.kind}; expected {', '.join(kinds)}")


def _place(header: Header) -> dict[str, Plain]:
    return {"round": header.round, "attempt": header.attempt, "kind": header.kind}


STALE = object()
"""Marks an answer to an earlier payload that came too late; the coordinator drops it."""
