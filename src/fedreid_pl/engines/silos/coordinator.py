"""The engine at the coordinator: sends jobs to silos as payloads and receives the answers in any order."""

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
from fedreid_pl.errors import FedReIDError, counted, printable
from fedreid_pl.federation.engine import Member
from fedreid_pl.federation.messages import ClientFailure, ClientJob, ClientUpdate, Plain, State

MOST_SMALL = 16 * 2**20
"""Largest size of an answer without tensors, in bytes."""
PATIENCE = 1.0  # seconds between two checks of the deadline while silos work
SILENCE = 30.0  # seconds without contact after which the coordinator prints that a silo is silent
AGAIN = 60.0  # seconds after which the coordinator sends an experiment again to a silo that refused it
REJOINS = ("NotJoined", "DataChanged")
"""Failures after which the coordinator sends the silo the experiment again."""
Outcome = ClientUpdate | ClientFailure


class SilosEngine(Exchange):
    """Sends jobs to silos and receives their answers.

    If a silo does not answer within `deadline` seconds, the round ends without it; the silo may take part in a later
    round. Silos can join and leave during a run. The coordinator sends the experiment to a silo that is new in the
    federation, or that no longer has the experiment. The silo takes part from the first round that begins after it has
    joined. The coordinator sends no more jobs to a silo that has left or is revoked.

    Args:
        federation: folder of the federation, with its silos and the key that signs payloads.
        transport: transfers bytes to silos and back.
        session: session of the jobs.
        text: configuration that the silos receive.
        folder: folder of the payloads that wait for a silo.
        announce: called with every job before it is sent.
        deadline: seconds that a silo has for an answer; `None` disables the limit.
        say: prints a line.

    Attributes:
        synthetic: whether all data of the run are synthetic so far; if so, a silo with photographs cannot join.
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
        self._gone: set[str] = set()  # silos that left before they joined; `join` does not wait for them
        self._initial: State = {}
        self._launch = 0
        self.synthetic = False

    # who takes part

    def join(
        self, initial: State, launch: int, least: int | None = None, absent: Collection[str] = ()
    ) -> dict[str, Registration]:
        """Sends the experiment with its initial weights to every silo and waits until they have joined.

        Args:
            initial: initial weights of the run.
            launch: number of this start of the coordinator.
            least: number of silos that suffices after the deadline; the others may join later. `None` requires all.
            absent: silos that left the run earlier; the coordinator does not wait for them.

        Returns:
            The registrations by silo, in the order of the federation.

        Raises:
            FedReIDError: if a silo refuses, or too few answer within the deadline.
        """
        self._initial, self._launch, begun, asked = initial, launch, time.monotonic(), False
        for silo in self.silos:
            self._invite(silo)
        while missing := [silo for silo in self.silos if silo not in {*self._joined, *absent, *self._gone}]:
            over = self.deadline is not None and time.monotonic() - begun >= self.deadline
            if over and least is not None and len(self._joined) >= least:
                self.say(f"the run starts without {', '.join(missing)}; they may join later")
                break
            if over:
                raise FedReIDError(
                    f"silo {missing[0]}: has not joined within engine.deadline={self.deadline} s; start it with "
                    "fedreid-pl silo run, or remove it with fedreid-pl federation revoke"
                )
            if not asked and time.monotonic() - begun >= SILENCE:
                asked = True
                self.say(f"waiting for {', '.join(missing)}; to start without a silo, use fedreid-pl federation revoke")
            self._note_status()
            self._take(PATIENCE, strict=True)
            self._look_at_members()
            self._invite_others()
        if not self._joined:
            raise FedReIDError(f"federation={self.federation.path}: no silo has joined")
        return self._in_order()

    def members(self) -> dict[str, Member]:
        """Returns the clients of the next round; sends the experiment to silos that have not joined."""
        self._look_at_members()
        self._invite_others()
        while self._take(0.0):
            pass
        return {found.client: Member(found.images, found.tests) for found in self._in_order().values()}

    def _invite_others(self) -> None:
        """Sends the experiment to silos that are new in the federation, or that have left or refused it."""
        for silo in self.silos:
            due = time.monotonic() >= self._not_before.get(silo, 0.0)
            if silo not in self._joined and silo not in self._waiting and due:
                self._invite(silo)

    def _in_order(self) -> dict[str, Registration]:
        return {silo: self._joined[silo] for silo in self.silos if silo in self._joined}

    def _invite(self, silo: str) -> None:
        """Offers the experiment to a silo; repeats the same bytes within one start of the coordinator."""
        if silo not in self._experiments:
            values: dict[str, Plain] = {"config": self.text, "silos": len(self.silos), "launch": self._launch}
            self._experiments[silo] = self._header("experiment", silo, values=values)
        self._post(silo, self._experiments[silo], self._initial, {}, MOST_SMALL)

    def _look_at_members(self) -> None:
        """Reads the list of members again, which an operator may have changed."""
        try:
            self.federation.reload()
        except FedReIDError as error:  # the earlier list stays valid
            self.say(f"warning: {error}")
            return
        self.silos = self.federation.members
        for silo in [name for name in self.traffic if name not in self.silos]:
            if self._joined.pop(silo, None) is not None:
                self.say(f"silo {silo} was revoked")
                self.events("revoked", silo=silo)
            if silo in self._waiting and self._waiting[silo].job is None:
                self._finished(silo)
        for silo in self.silos:
            self.traffic.setdefault(silo, Traffic())

    def _take(self, timeout: float, strict: bool = False) -> bool:
        """Receives an answer to an experiment; drops answers to other payloads.

        Args:
            timeout: longest wait in seconds.
            strict: whether a refusal or an invalid answer ends the run.

        Returns:
            Whether an answer arrived.
        """
        if (arrived := self.transport.next(timeout)) is None:
            return False
        self._took_experiment(*arrived, strict)
        return True

    def _took_experiment(self, silo: str, payload: Payload, strict: bool = False) -> None:
        waiting, opened = self._taken(silo, payload)
        if waiting is None or waiting.job is not None:  # the answer belongs to a pass that was stopped
            return
        try:
            if opened is None:
                raise FedReIDError(f"silo {silo}: its answer is not valid; use the same version of fedreid_pl")
            if opened.header.kind == "refused":
                raise FedReIDError(refusal_of(silo, str(opened.header.values.get("reason", ""))))
            if opened.header.kind == "left":
                self._gone.add(silo)
                self.say(f"silo {silo} has left")
                return
            found = registration_of(silo, opened.header)
            if self.synthetic:
                found.check_synthetic()
            self._joined[silo] = found
            self._gone.discard(silo)
            self.say(f"silo {silo} has joined: {counted(found.images, 'training image')}")
        except FedReIDError as error:
            if strict:
                raise
            self._not_before[silo] = time.monotonic() + AGAIN
            self.say(f"warning: {error}; the run continues without it")

    # an engine's protocol

    def fit(self, jobs: Iterable[ClientJob]) -> Iterator[Outcome]:
        """Yields the outcome of each training job as the silos answer."""
        return self._run(jobs)

    def evaluate(self, jobs: Iterable[ClientJob]) -> Iterator[Outcome]:
        """Yields the outcome of each evaluation job as the silos answer."""
        return self._run(jobs)

    def _run(self, jobs: Iterable[ClientJob]) -> Iterator[Outcome]:
        for name in [name for name, waiting in self._waiting.items() if waiting.job is not None]:
            self._finished(name)  # this job belongs to a pass that was stopped
        silos, gone = {found.client: silo for silo, found in self._joined.items()}, []
        for job in jobs:
            self.announce(job)
            if job.client not in silos:  # the silo has left during the round
                gone.append(job)
                continue
            header = self._header(job.kind, silos[job.client], job.round, job.attempt, job.config)
            most = MOST_SMALL if job.kind == "evaluate" else self._most(job)
            self._post(silos[job.client], header, job.backbone, job.extras, most).job = job
        yield from (
            ClientFailure(job.round, job.client, "the silo left before it got the job", final=True) for job in gone
        )
        for silo, waiting, opened in self._answers():
            assert waiting.job is not None
            yield self._outcome(silo, waiting.job, waiting.late, opened)

    def _outcome(self, silo: str, job: ClientJob, late: bool, opened: Opened | None) -> Outcome:
        if silo not in self.silos:
            return ClientFailure(job.round, job.client, "the silo was revoked", final=True)
        if opened is None:
            return ClientFailure(
                job.round, job.client, "the silo did not answer in time" if late else "BadPayload", final=late
            )
        if opened.header.kind == "left":
            self._joined.pop(silo, None)
            self.say(f"silo {silo} has left")
            return ClientFailure(job.round, job.client, "the silo has left", final=True)
        outcome = _outcome(job, opened)
        if isinstance(outcome, ClientFailure) and outcome.reason in REJOINS:
            self._joined.pop(silo, None)
        return outcome

    def _most(self, job: ClientJob) -> int:
        """Returns the largest size of the answer to a job in bytes: algorithms send up to some copies of the model."""
        return 4 * job.nbytes + 8 * MOST_SMALL

    def _answers(self) -> Iterator[tuple[str, Waiting, Opened | None]]:
        """Yields silo, sent job and opened answer as answers arrive; the answer is `None` if it is invalid or late."""
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
                self.events("left_out", "warning", silo=silo, round=waiting.header.round, reason="late")
                yield self._finished(silo), waiting, None

    def _late(self) -> list[str]:
        """Returns silos that are over the deadline or revoked; prints once for each silent silo that it is silent."""
        now, seen = time.monotonic(), self.transport.seen()
        jobs = {silo: waiting for silo, waiting in self._waiting.items() if waiting.job is not None}
        for silo, waiting in jobs.items():
            quiet = min(seen.get(silo, float("inf")), now - waiting.since)
            if quiet > SILENCE and not waiting.said:
                waiting.said = True
                self.events("silent", "warning", silo=silo, seconds=round(quiet))
                self.say(f"silo {silo} has sent nothing for {quiet:.0f} s; the round waits for it")
        over = [silo for silo, waiting in jobs.items() if self.deadline and now - waiting.since >= self.deadline]
        return [silo for silo in jobs if silo not in self.silos or silo in over]


def _outcome(job: ClientJob, opened: Opened) -> Outcome:
    """Returns a silo's answer as an update or a failure; the server compares the update with the job."""
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
