"""The Ray engine: sends jobs to slots as tasks and turns their replies into updates."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import ray
import torch
from ray.exceptions import RayTaskError

from fedreid_pl.config import absolute
from fedreid_pl.engines import EngineParts
from fedreid_pl.engines.ray.answers import Answers, Outcome
from fedreid_pl.engines.ray.cluster import Cluster
from fedreid_pl.engines.ray.pool import Lost, Slot, SlotPool, Task, last_line
from fedreid_pl.engines.ray.schedule import TESTED, TRAINED, Pass, Schedule, verdict
from fedreid_pl.engines.ray.signals import held_signals
from fedreid_pl.engines.ray.slot import place_of
from fedreid_pl.engines.ray.states import DriverStates
from fedreid_pl.engines.ray.wire import Reply, SlotJob, SlotParts, pack, unpack
from fedreid_pl.engines.sequential import failure
from fedreid_pl.errors import FedReIDError, counted
from fedreid_pl.federation.client.store import LostState
from fedreid_pl.federation.forward import ForwardPass
from fedreid_pl.federation.messages import ClientFailure, ClientJob, ClientUpdate
from fedreid_pl.reporting.terminal import say


class RayEngine:
    """Runs jobs in slots of a Ray cluster. The driver trains no client: it checks and aggregates updates, saves files.

    Args:
        parts: everything that an engine is built from.
        cluster: the cluster that runs the slots; `close` closes it.
    """

    def __init__(self, parts: EngineParts, cluster: Cluster) -> None:
        self.parts, self.cluster, self.config = parts, cluster, parts.config
        self._threads = torch.get_num_threads()
        torch.set_num_threads(self.config.engine.cpus_per_client)  # threads change exact sums here
        assert parts.data is not None
        self._data = parts.data
        self._states = DriverStates(parts.worker)
        self._schedule = Schedule(self._images, self.config.client_timeout)
        self._pool: SlotPool | None = None
        self._shared: dict[tuple[Any, ...], Any] = {}  # states in Ray's store in this pass
        self._teachers: dict[int, tuple[Any, Any]] = {}  # the same for states of forward passes, by their `id`
        self._took, self._judged = 0.0, False

    def fit(self, jobs: Iterable[ClientJob]) -> Iterator[Outcome]:
        """Yields the outcome of each training job, see `ClientWorker.fit`."""
        return self._run(jobs)

    def evaluate(self, jobs: Iterable[ClientJob]) -> Iterator[Outcome]:
        """Yields the outcome of each evaluation job, see `ClientWorker.evaluate`; each test set is a separate task."""
        return self._run(jobs)

    def features(self, tasks: Sequence[ForwardPass]) -> Iterator[torch.Tensor]:
        """Yields the features of every task in the order of the tasks, see `ServerNetwork.features`."""
        assert self._pool is not None
        work = [Task(partial(self._send_forward, task), _nothing, task.what) for task in tasks]
        places = {id(one): place for place, one in enumerate(work)}
        found: dict[int, torch.Tensor] = {}
        for one, _, answer in self._pool.run(work):
            if isinstance(answer, Lost | RayTaskError):
                reason = answer.reason if isinstance(answer, Lost) else last_line(answer)
                raise FedReIDError(f"engine=ray: {one.what} failed ({reason})")
            found[places[id(one)]] = torch.from_numpy(answer.copy())
        yield from (found[place] for place in range(len(work)))

    def _send_forward(self, task: ForwardPass, slot: Slot) -> Any:
        images = {str(number): batch for number, batch in enumerate(task.batches)}
        if (key := id(task.state)) not in self._teachers:  # put once for all chunks of images
            self._teachers[key] = (self._stored(task.state), task.state)
        return slot.actor.features.remote(self._teachers[key][0], self._put(images), task.train, list(task.seeds))

    def close(self) -> None:
        """Ends the slots, and ends Ray if this run has started it."""
        try:
            if self._pool is not None:
                self._pool.close()
        finally:
            self._forget()
            self.cluster.close()
            torch.set_num_threads(self._threads)

    def _run(self, jobs: Iterable[ClientJob]) -> Iterator[Outcome]:
        assert self._pool is not None
        pool = self._pool
        self._forget()
        whole = {job.client: Answers(job, self._announced(job)) for job in jobs}
        pieces = [piece for answers in whole.values() for piece in answers.pieces]
        start, seconds = time.perf_counter(), dict[str, float]()
        waiting = [pieces[place] for place in self._schedule.order(pieces)]
        while waiting:
            tasks = {id(task): (job, task) for job in waiting for task in [self._task(job, whole[job.client])]}
            waiting = []
            for task, slot, answer in pool.run([task for _, task in tasks.values()]):
                job = tasks[id(task)][0]
                if isinstance(answer, Reply) and answer.unseen:
                    self._send_from_now_on(slot)
                    waiting.append(job)
                    continue
                outcome = self._outcome(job, slot, answer)
                if isinstance(answer, Reply):
                    seconds[job.client] = seconds.get(job.client, 0.0) + answer.seconds
                    self._schedule.note(job, answer.seconds)
                if (done := whole[job.client].take(job, outcome)) is not None:
                    yield done
        self._forget()
        if seconds:
            self._account(pieces[0], Pass(seconds, time.perf_counter() - start, len(pool.slots)))

    def _account(self, job: ClientJob, done: Pass) -> None:
        """Reports how well the slots were used; after the first round, prints whether they save time."""
        measure, kind = self.parts.measure, job.kind
        measure("slots", f"{kind}_clock_seconds", done.clock)
        measure("slots", f"{kind}_sum_seconds", done.sum)
        measure("slots", f"{kind}_bound_seconds", done.bound)
        measure(done.longest, f"longest_{kind}_seconds", done.seconds[done.longest])
        if kind == "fit" and not self._judged:
            self._judged = True
            for line in verdict(done, self._took, self.config.rounds - job.round + 1):
                say(line)

    def _forget(self) -> None:
        """Drops the references to the states of one pass, so that Ray can delete them from its store."""
        self._shared.clear()
        self._teachers.clear()

    def _announced(self, job: ClientJob) -> Any:
        announced: list[ClientJob] = []

        def begin() -> None:
            if not announced:
                announced.append(job)
                self.parts.announce(job)

        return begin

    def _task(self, job: ClientJob, answers: Answers) -> Task:
        verb = "training" if job.kind == "fit" else "evaluating"
        return Task(
            lambda slot: self._send(slot, job), answers.begin, f"{verb} {job.client}", self._schedule.limit(job)
        )

    def _send(self, slot: Slot, job: ClientJob) -> Any:
        assert slot.facts is not None
        try:
            start = self._states.start_of(job, sent=not slot.facts.sees_folder)
        except LostState as error:  # same failure as if the slot had raised it
            return ray.put(Reply(ClientFailure(job.round, job.client, "LostState", str(error), final=True)))
        light = replace(job, backbone={}, exchanged=(), extras={})
        task = SlotJob(light, start.round, start.state)
        return slot.actor.do.remote(task, self._put(job.backbone), self._put(job.extras))

    def _put(self, state: Mapping[str, torch.Tensor]) -> Any:
        """Returns the reference of a state in Ray's store; stores tensors that several jobs of a pass share once."""
        if not state:
            return []
        key = tuple((name, id(value)) for name, value in state.items())
        if key not in self._shared:
            self._shared[key] = (self._stored(state), state)  # keeps the state alive: its ids stay unique
        return self._shared[key][0]

    def _stored(self, state: Mapping[str, torch.Tensor]) -> Any:
        try:
            with held_signals():
                return ray.put(pack(state))
        except (OSError, ray.exceptions.ObjectStoreFullError, ray.exceptions.OutOfDiskError) as error:
            reason = " ".join(str(error).split())[:200]
            raise FedReIDError(
                f"engine=ray: a model does not fit into Ray's object store ({reason}); make room in /dev/shm and in "
                "Ray's temporary folder"
            ) from error

    def _outcome(self, job: ClientJob, slot: Slot, answer: Any) -> Outcome:
        if isinstance(answer, Lost):
            return ClientFailure(job.round, job.client, "LostSlot", answer.reason, final=True)
        if isinstance(answer, RayTaskError):
            cause = answer.cause if isinstance(answer.cause, Exception) else answer
            return failure(job, cause)
        for line in answer.said:
            say(line)
        if answer.error:
            raise FedReIDError(answer.error)
        name = f"slot {slot.number}"
        self.parts.measure(name, "busy_seconds", answer.seconds)
        self.parts.measure(name, "peak_memory_bytes", answer.peak_memory)
        if answer.gpu_memory:
            self.parts.measure(name, "gpu_peak_memory_bytes", answer.gpu_memory)
        if not isinstance(answer.outcome, ClientUpdate):
            return answer.outcome
        if answer.kept is not None:
            self._states.keep(job, answer.kept)
        for look in answer.looks:
            self.parts.deliver(look)
        backbone, extras = unpack(answer.backbone, copy=True), unpack(answer.extras, copy=True)
        return replace(answer.outcome, backbone=backbone, extras=extras)

    def _send_from_now_on(self, slot: Slot) -> None:
        assert slot.facts is not None
        say(
            f"warning: {slot.facts.machine} cannot read the run's folder; the driver sends slot {slot.number} the "
            "state of its clients (engine.client_state=driver)"
        )
        slot.facts = replace(slot.facts, sees_folder=False)

    def open(self) -> None:
        """Starts the slots and waits until the first slot is ready.

        Raises:
            FedReIDError: if Ray or a slot does not start, or the data of a slot differ from the driver's.
        """
        start, c = time.perf_counter(), self.config.engine
        self.cluster.wait()
        initial = ray.put(pack(self.parts.worker.initial))
        parts = self._slot_parts()
        count = min(c.slots or self.cluster.capacity(), self._most_at_once())
        start_slot = lambda number: self.cluster.start_slot()  # noqa: E731
        prepare = lambda actor: actor.prepare.remote(parts, initial)  # noqa: E731
        self._pool = SlotPool(start_slot, prepare, count, say)
        self.cluster.end_early()
        self._pool.wait_until_one_is_ready()
        waited, self._took = time.perf_counter() - start, self.cluster.since_start()
        self.parts.measure("slots", "start_seconds", self._took)
        machines = self.cluster.machines()
        say(
            f"Ray: {counted(count, 'slot')} of {counted(c.cpus_per_client, 'thread')} on "
            f"{counted(machines, 'machine')}; the first was ready after {self._took:.1f} s, and the "
            f"run waited for {waited:.1f} s of them"
        )

    def _slot_parts(self) -> SlotParts:
        folder = self.parts.folder.resolve()
        digests = {name: entry["sha256"] for name, entry in self._data.digests.items()}
        return SlotParts(
            absolute(self.config),
            str(folder),
            digests,
            place_of(folder),
            self.config.engine.client_state,
            self.cluster.most_on_one_machine(),
        )

    def _most_at_once(self) -> int:
        clients = len(self._data.clients)
        return max(min(clients, self.config.clients_per_round or clients), len(self._data.tests), 1)

    def _images(self, job: ClientJob) -> float:
        """Returns the cost of a job in images; each training image counts three times."""
        client, named = self._data.clients[job.client], job.config.get("tests")
        known = {**self._data.tests, **self._data.unseen}
        tests = [known[test] for test in (str(named).split("/") if named else client.tests)]
        tested = sum(len(test.query) + len(test.gallery) for test in tests)
        if job.kind == "evaluate":
            return TESTED * tested
        config = self.config
        images = len(client.train) * config.local_epochs
        trained = TRAINED * (images if config.local_steps is None else config.local_steps * config.batch_size)
        return trained + (TESTED * tested if job.config.get("evaluate") else 0.0)


def _nothing() -> None:
    """Does nothing: a forward pass of the server has no client to announce."""
