"""The engine at the coordinator: jobs go out as payloads, answers come back in any order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedreid_pl.data.scenarios import NO_CAMERAS
from fedreid_pl.engines.silos.cards import COORDINATOR
from fedreid_pl.engines.silos.federation_folder import FederationFolder
from fedreid_pl.engines.silos.payload import METRIC, BadPayload, Header, Opened, Payload, open_payload, write_payload
from fedreid_pl.engines.silos.shared import experiment_digest
from fedreid_pl.engines.silos.status import StatusFile, Traffic
from fedreid_pl.engines.silos.transport import Transport
from fedreid_pl.errors import FedReIDError, printable
from fedreid_pl.federation.messages import ClientFailure, ClientJob, ClientUpdate, Plain, State

MOST_SMALL = 16 * 2**20
"""Bytes of an answer without tensors."""
PATIENCE = 1.0  # seconds between two looks at the clock while silos work
SILENCE = 30.0  # seconds without a sign of a silo before the coordinator says so
Say = Callable[[str], None]
Outcome = ClientUpdate | ClientFailure


@dataclass(frozen=True)
class Registration:
    """What a silo told when it joined.

    Args:
        silo: its name.
        client: name of its client.
        images: its training pictures.
        tests: names of its test sets.
        synthetic: whether it says that this program drew its pictures.
        version, torch: versions of its software.
    """

    silo: str
    client: str
    images: int
    tests: tuple[str, ...]
    synthetic: bool
    version: str
    torch: str


@dataclass
class Waiting:
    """A payload that is out."""

    digest: str
    header: Header
    job: ClientJob | None = None
    said: bool = False
    late: bool = False
    since: float = field(default_factory=time.monotonic)


class SilosEngine:
    """Sends jobs to silos and takes their answers.

    Only answers that are signed by the silo itself, and that answer the payload that is out, count. A silo that does
    not answer within `deadline` seconds is left out of the round and may come back in a later one.

    Args:
        federation: who takes part, and the key that signs.
        transport: brings bytes to silos and back.
        session: of the jobs.
        text: the configuration that silos are told.
        folder: where payloads lie until they are fetched.
        announce: called with every job before it goes out.
        deadline: seconds; `None`: any.
        say: prints a line.
    """

    def __init__(
        self,
        federation: FederationFolder,
        transport: Transport,
        session: str,
        text: str,
        folder: Path,
        announce: Callable[[ClientJob], None] | None = None,
        deadline: float | None = None,
        say: Say | None = None,
    ) -> None:
        self.federation, self.transport, self.session, self.text = federation, transport, session, text
        self.experiment = experiment_digest(text)
        self.folder, self.deadline = folder, deadline
        self.announce, self.say = announce or (lambda job: None), say or (lambda line: None)
        self.members = federation.members
        self.traffic = {name: Traffic() for name in self.members}
        self.round = 0
        self._status = StatusFile(federation.path)
        self._silo_of: dict[str, str] = {}
        self._waiting: dict[str, Waiting] = {}
        folder.mkdir(parents=True, exist_ok=True)

    # the beginning

    def join(self, initial: State, launch: int) -> dict[str, Registration]:
        """Sends the experiment with its initial weights to every silo and waits until all have joined.

        Returns:
            What they told, in the order of the federation.

        Raises:
            FedReIDError: if a silo refuses, or does not answer within the deadline.
        """
        values: dict[str, Plain] = {"config": self.text, "silos": len(self.members), "launch": launch}
        for silo in self.members:
            self._post(silo, self._header("experiment", silo, values=values), initial, {}, MOST_SMALL)
        found: dict[str, Registration] = {}
        for silo, waiting, opened in self._answers():
            if opened is None:
                late = f"has not joined within engine.deadline={self.deadline} s"
                raise FedReIDError(
                    f"silo {silo}: {late if waiting.late else 'its answer is not valid'}; start it with "
                    "fedreid-pl silo run, or take it out with fedreid-pl federation revoke"
                )
            if opened.header.kind == "refused":
                raise FedReIDError(_refused(silo, str(opened.header.values.get("reason", ""))))
            found[silo] = _registration(silo, opened.header)
            self.say(f"silo {silo} has joined: {found[silo].images} training images")
        self._silo_of = {registration.client: silo for silo, registration in found.items()}
        return {silo: found[silo] for silo in self.members}

    # an engine's protocol

    def fit(self, jobs: Iterable[ClientJob]) -> Iterator[Outcome]:
        """Trains at the silos."""
        return self._run(jobs)

    def evaluate(self, jobs: Iterable[ClientJob]) -> Iterator[Outcome]:
        """Evaluates at the silos."""
        return self._run(jobs)

    def close(self) -> None:
        """Ends the transport and deletes what was laid ready."""
        for silo in self.members:
            (self.folder / f"{silo}.job.safetensors").unlink(missing_ok=True)
        self._status.write(self.session, self.round, self.traffic, self.transport.seen(), over=True)
        self.transport.close()

    def _run(self, jobs: Iterable[ClientJob]) -> Iterator[Outcome]:
        for silo in list(self._waiting):  # of a pass that was broken off
            self._finished(silo)
        for job in jobs:
            self.announce(job)
            silo = self._silo_of[job.client]
            header = self._header(job.kind, silo, job.round, job.attempt, job.config)
            most = MOST_SMALL if job.kind == "evaluate" else self._most(job)
            self._post(silo, header, job.backbone, job.extras, most).job = job
        for _, waiting, opened in self._answers():
            assert waiting.job is not None
            if opened is None:
                reason = "did not answer in time" if waiting.late else "BadPayload"
                yield ClientFailure(waiting.job.round, waiting.job.client, reason, final=waiting.late)
            else:
                yield _outcome(waiting.job, opened)

    def _most(self, job: ClientJob) -> int:
        """Bytes that the answer to a job may have: algorithms send up to some copies of what they get."""
        return 4 * job.nbytes + 8 * MOST_SMALL

    # payloads

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
        self.round = header.round
        self.traffic[silo].down += payload.envelope.size
        self.traffic[silo].state = f"round {header.round}: {header.kind}"
        return self._waiting[silo]

    def _answers(self) -> Iterator[tuple[str, Waiting, Opened | None]]:
        """The answers to all payloads that are out, as they come; `None` for one that is none or is too late."""
        while self._waiting:
            self._status.write(self.session, self.round, self.traffic, self.transport.seen())
            arrived = self.transport.next(PATIENCE)
            if arrived is not None:
                silo, payload = arrived
                if (waiting := self._waiting.get(silo)) is None:
                    payload.path.unlink(missing_ok=True)
                    continue
                opened = self._opened(silo, waiting, payload)
                payload.path.unlink(missing_ok=True)  # mapped, if it is used
                if opened is not STALE:
                    yield self._finished(silo), waiting, opened  # type: ignore[misc]
            for silo in self._late():
                waiting = self._waiting[silo]
                waiting.late = True
                yield self._finished(silo), waiting, None

    def _finished(self, silo: str) -> str:
        waiting = self._waiting.pop(silo)
        self.transport.withdraw(silo)
        self.traffic[silo].state = f"round {waiting.header.round}: {waiting.header.kind} is answered"
        return silo

    def _opened(self, silo: str, waiting: Waiting, payload: Payload) -> Opened | object | None:
        self.traffic[silo].up += payload.envelope.size
        try:
            opened = open_payload(payload, self.members[silo].signing_key)
            if opened.header.answers != waiting.digest:
                return STALE
            self._check(silo, waiting.header, opened.header)
        except BadPayload as error:
            self.traffic[silo].refused += 1
            self.say(f"warning: silo {silo}: its answer {error}")
            return None
        return opened

    def _check(self, silo: str, sent: Header, header: Header) -> None:
        if (header.sender, header.addressee, header.federation) != (silo, COORDINATOR, sent.federation):
            raise BadPayload("is of another silo or federation")
        if (header.session, header.experiment) != (sent.session, sent.experiment):
            raise BadPayload("is of another session")
        if (header.round, header.attempt) != (sent.round, sent.attempt):
            raise BadPayload("is of another round or attempt")
        kinds = ("joined", "refused") if sent.kind == "experiment" else ("update", "failure")
        if header.kind not in kinds:
            raise BadPayload(f"is of kind {header.kind}")

    def _late(self) -> list[str]:
        """Silos whose time is up; says once which are silent."""
        now, seen = time.monotonic(), self.transport.seen()
        for silo, waiting in self._waiting.items():
            quiet = min(seen.get(silo, float("inf")), now - waiting.since)
            if quiet > SILENCE and not waiting.said:
                waiting.said = True
                self.say(f"silo {silo} has not been heard of for {quiet:.0f} s; the round waits for it")
        if self.deadline is None:
            return []
        return [silo for silo, waiting in self._waiting.items() if now - waiting.since >= self.deadline]


STALE = object()
"""An answer to an earlier payload, which came too late; it is dropped."""


def _outcome(job: ClientJob, opened: Opened) -> Outcome:
    """What the server gets of a silo's answer; the update is held against the job there."""
    header, values = opened.header, opened.header.values
    if header.kind == "failure":
        reason = printable(str(values.get("reason", "")), 60)
        return ClientFailure(job.round, job.client, reason, final=values.get("final") is True)
    numbers = {name.removeprefix(METRIC): value for name, value in values.items() if name.startswith(METRIC)}
    samples: Any = values.get("num_samples")
    try:
        return ClientUpdate(header.round, job.client, opened.backbone, samples, numbers, opened.extras)  # type: ignore[arg-type]
    except TypeError as error:
        return ClientFailure(job.round, job.client, "BadPayload", str(error))


def _refused(silo: str, reason: str) -> str:
    reason = printable(reason, 60)
    key = reason.removeprefix("policy.")
    if key == reason:
        return f"silo {silo}: cannot join ({reason}); its operator sees why on the silo's screen"
    advice = " (set min_clients=2 or more)" if key == "minimum_silos" else ""
    return f"silo {silo}: its policy does not allow this experiment ({key}){advice}; ask its operator"


def _registration(silo: str, header: Header) -> Registration:
    values = header.values
    kinds = {"client": str, "images": int, "tests": str, "synthetic": bool, "version": str, "torch": str}
    if any(type(values.get(name)) is not kind for name, kind in kinds.items()):
        raise FedReIDError(f"silo {silo}: joined with a message that is none; use the same version of fedreid_pl")
    client, tests = str(values["client"]), tuple(name for name in str(values["tests"]).split("/") if name)
    if client not in (silo, silo + NO_CAMERAS):
        raise FedReIDError(f"silo {silo}: joined as client {printable(client)}; a silo is the client of its own name")
    own = {client, f"val:{client}"}
    images = values["images"]
    if not set(tests) <= own or not isinstance(images, int) or not 2 <= images <= 2**40:
        raise FedReIDError(f"silo {silo}: joined with {images} images and test sets that are not its own")
    versions = (printable(str(values["version"]), 40), printable(str(values["torch"]), 40))
    return Registration(silo, client, images, tests, bool(values["synthetic"]), *versions)
