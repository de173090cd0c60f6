"""The engine at the coordinator: jobs go out as payloads, answers come back in any order."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from fedreid_pl.engines.silos.exchange import Exchange, Say, Waiting
from fedreid_pl.engines.silos.federation_folder import FederationFolder
from fedreid_pl.engines.silos.payload import METRIC, Header, Opened, Payload
from fedreid_pl.engines.silos.registration import Registration, refusal_of, registration_of
from fedreid_pl.engines.silos.status import Traffic
from fedreid_pl.engines.silos.transport import Transport
from fedreid_pl.errors import FedReIDError, printable
from fedreid_pl.federation.engine import Member
from fedreid_pl.federation.messages import ClientFailure, ClientJob, ClientUpdate, Plain, State

MOST_SMALL = 16 * 2**20
"""Bytes of an answer without tensors."""
PATIENCE = 1.0  # seconds between two looks at the clock while silos work
SILENCE = 30.0  # seconds without a sign of a silo before the coordinator says so
AGAIN = 60.0  # seconds after which a silo that refused an experiment is sent it once more
REJOINS = ("NotJoined", "DataChanged")
"""Failures of a silo that has to be sent the experiment again."""
Outcome = ClientUpdate | ClientFailure


class SilosEngine(Exchange):
    """Sends jobs to silos and takes their answers.

    A silo that does not answer within `deadline` seconds is left out of the round and may come back in a later one.

    Silos come and go while a run goes on. One that is added to the federation, or that no longer has the experiment, is
    sent the experiment and takes part from the first round that begins after it has joined. One that leaves or is
    revoked is not asked any more.

    Args:
        federation: who takes part, and the key that signs.
        transport: brings bytes to silos and back.
        session: of the jobs.
        text: the configuration that silos are told.
        folder: where payloads lie until they are fetched.
        announce: called with every job before it goes out.
        deadline: seconds; `None`: any.
        say: prints a line.

    Attributes:
        synthetic: whether the run is called synthetic; silos with photographs are then refused.
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
        super().__init__(federation, transport, session, text, folder, say)
        self.announce, self.deadline = announce or (lambda job: None), deadline
        self._joined: dict[str, Registration] = {}
        self._experiments: dict[str, Header] = {}
        self._not_before: dict[str, float] = {}
        self._initial: State = {}
        self._launch = 0
        self.synthetic = False

    # who takes part

    def join(
        self, initial: State, launch: int, least: int | None = None, absent: Collection[str] = ()
    ) -> dict[str, Registration]:
        """Sends the experiment with its initial weights to every silo and waits until they have joined.

        Args:
            initial: the weights that the run begins with.
            launch: number of this start of the coordinator.
            least: how many silos are enough when the deadline is over; the others may join later. `None`: all.
            absent: silos that are not waited for, as they had left the run before.

        Returns:
            What they told, in the order of the federation.

        Raises:
            FedReIDError: if a silo refuses, or too few answer within the deadline.
        """
        self._initial, self._launch, begun, asked = initial, launch, time.monotonic(), False
        for silo in self.silos:
            self._invite(silo)
        while missing := [silo for silo in self.silos if silo not in self._joined and silo not in absent]:
            over = self.deadline is not None and time.monotonic() - begun >= self.deadline
            if over and least is not None and len(self._joined) >= least:
                self.say(f"the run begins without {', '.join(missing)}; they may join later")
                break
            if over:
                raise FedReIDError(
                    f"silo {missing[0]}: has not joined within engine.deadline={self.deadline} s; start it with "
                    "fedreid-pl silo run, or take it out with fedreid-pl federation revoke"
                )
            if not asked and time.monotonic() - begun >= SILENCE:
                asked = True
                self.say(f"waiting for {', '.join(missing)}; fedreid-pl federation revoke goes on without a silo")
            self._note_status()
            self._take(PATIENCE, strict=True)
            self._look_at_members()
        if not self._joined:
            raise FedReIDError(f"federation={self.federation.path}: no silo has joined")
        return self._in_order()

    def members(self) -> dict[str, Member]:
        """Returns the clients of the round that begins; silos that are new or have left are sent the experiment."""
        self._look_at_members()
        for silo in self.silos:
            due = time.monotonic() >= self._not_before.get(silo, 0.0)
            if silo not in self._joined and silo not in self._waiting and due:
                self._invite(silo)
        while self._take(0.0):
            pass
        return {found.client: Member(found.images, found.tests) for found in self._in_order().values()}

    def _in_order(self) -> dict[str, Registration]:
        return {silo: self._joined[silo] for silo in self.silos if silo in self._joined}

    def _invite(self, silo: str) -> None:
        """Lays the experiment ready: within one start of the coordinator the same bytes, which are no replay."""
        if silo not in self._experiments:
            values: dict[str, Plain] = {"config": self.text, "silos": len(self.silos), "launch": self._launch}
            self._experiments[silo] = self._header("experiment", silo, values=values)
        self._post(silo, self._experiments[silo], self._initial, {}, MOST_SMALL)

    def _look_at_members(self) -> None:
        """Reads who may take part, which an operator may have changed."""
        try:
            self.federation.reload()
        except FedReIDError as error:  # the list of before holds
            self.say(f"warning: {error}")
            return
        self.silos = self.federation.members
        for silo in [name for name in self.traffic if name not in self.silos]:
            if self._joined.pop(silo, None) is not None:
                self.say(f"silo {silo} was revoked")
            if silo in self._waiting and self._waiting[silo].job is None:
                self._finished(silo)
        for silo in self.silos:
            self.traffic.setdefault(silo, Traffic())

    def _take(self, timeout: float, strict: bool = False) -> bool:
        """Takes an answer to an experiment; answers to anything else are dropped.

        Args:
            timeout: seconds to wait for it.
            strict: a silo that refuses, or answers with what is none, ends the run.

        Returns:
            Whether something came.
        """
        if (arrived := self.transport.next(timeout)) is None:
            return False
        self._took_experiment(*arrived, strict)
        return True

    def _took_experiment(self, silo: str, payload: Payload, strict: bool = False) -> None:
        waiting, opened = self._taken(silo, payload)
        if waiting is None or waiting.job is not None:  # of a pass that was broken off
            return
        try:
            if opened is None:
                raise FedReIDError(f"silo {silo}: its answer is not valid; use the same version of fedreid_pl")
            if opened.header.kind == "refused":
                raise FedReIDError(refusal_of(silo, str(opened.header.values.get("reason", ""))))
            if opened.header.kind == "left":
                self.say(f"silo {silo} has left")
                return
            found = registration_of(silo, opened.header)
            if self.synthetic:
                found.check_synthetic()
            self._joined[silo] = found
            self.say(f"silo {silo} has joined: {found.images} training images")
        except FedReIDError as error:
            if strict:
                raise
            self._not_before[silo] = time.monotonic() + AGAIN
            self.say(f"warning: {error}; the run goes on without it")

    # an engine's protocol

    def fit(self, jobs: Iterable[ClientJob]) -> Iterator[Outcome]:
        """Trains at the silos."""
        return self._run(jobs)

    def evaluate(self, jobs: Iterable[ClientJob]) -> Iterator[Outcome]:
        """Evaluates at the silos."""
        return self._run(jobs)

    def _run(self, jobs: Iterable[ClientJob]) -> Iterator[Outcome]:
        for name in [name for name, waiting in self._waiting.items() if waiting.job is not None]:
            self._finished(name)  # of a pass that was broken off
        silos, gone = {found.client: silo for silo, found in self._joined.items()}, []
        for job in jobs:
            self.announce(job)
            if job.client not in silos:  # it has left within the round
                gone.append(job)
                continue
            header = self._header(job.kind, silos[job.client], job.round, job.attempt, job.config)
            most = MOST_SMALL if job.kind == "evaluate" else self._most(job)
            self._post(silos[job.client], header, job.backbone, job.extras, most).job = job
        yield from (ClientFailure(job.round, job.client, "is not there any more", final=True) for job in gone)
        for silo, waiting, opened in self._answers():
            assert waiting.job is not None
            yield self._outcome(silo, waiting.job, waiting.late, opened)

    def _outcome(self, silo: str, job: ClientJob, late: bool, opened: Opened | None) -> Outcome:
        if silo not in self.silos:
            return ClientFailure(job.round, job.client, "was revoked", final=True)
        if opened is None:
            return ClientFailure(job.round, job.client, "did not answer in time" if late else "BadPayload", final=late)
        if opened.header.kind == "left":
            self._joined.pop(silo, None)
            self.say(f"silo {silo} has left")
            return ClientFailure(job.round, job.client, "has left", final=True)
        outcome = _outcome(job, opened)
        if isinstance(outcome, ClientFailure) and outcome.reason in REJOINS:
            self._joined.pop(silo, None)
        return outcome

    def _most(self, job: ClientJob) -> int:
        """Bytes that the answer to a job may have: algorithms send up to some copies of what they get."""
        return 4 * job.nbytes + 8 * MOST_SMALL

    def _answers(self) -> Iterator[tuple[str, Waiting, Opened | None]]:
        """The answers to all jobs that are out, as they come; `None` for one that is none or is too late."""
        while any(waiting.job is not None for waiting in self._waiting.values()):
            self._note_status()
            arrived = self.transport.next(PATIENCE)
            if arrived is not None:
                silo, payload = arrived
                if silo in self._waiting and self._waiting[silo].job is None:
                    self._took_experiment(silo, payload)
                    continue
                waiting, opened = self._taken(silo, payload)
                if waiting is not None:
                    yield silo, waiting, opened
            self._look_at_members()
            for silo in self._late():
                waiting = self._waiting[silo]
                waiting.late = True
                yield self._finished(silo), waiting, None

    def _late(self) -> list[str]:
        """Silos whose time is up, or that were revoked; says once which are silent."""
        now, seen = time.monotonic(), self.transport.seen()
        jobs = {silo: waiting for silo, waiting in self._waiting.items() if waiting.job is not None}
        for silo, waiting in jobs.items():
            quiet = min(seen.get(silo, float("inf")), now - waiting.since)
            if quiet > SILENCE and not waiting.said:
                waiting.said = True
                self.say(f"silo {silo} has not been heard of for {quiet:.0f} s; the round waits for it")
        over = [silo for silo, waiting in jobs.items() if self.deadline and now - waiting.since >= self.deadline]
        return [silo for silo in jobs if silo not in self.silos or silo in over]


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
