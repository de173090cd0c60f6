"""The slots of a run: tasks are given to idle ones, and those that are lost or hang are replaced."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from fedreid_pl.engines.ray.signals import held_signals
from fedreid_pl.engines.ray.wire import SlotFacts
from fedreid_pl.errors import FedReIDError

TICK = 1.0  # seconds between two looks at the clock while nothing arrives
MOST_LOSSES = 3  # slots that one task may take along
PATIENCE = 180.0  # seconds without a slot that is ready


@dataclass
class Task:
    """Something for a slot to do.

    Args:
        send: sends it to a slot's actor; returns the reference of the answer.
        begin: called when it is given to a slot for the first time.
        what: for messages, such as "training mini-viper".
        limit: seconds after which the slot is taken to hang; `None`: it is never.
        losses: slots that were lost with it; one that hangs counts twice.
    """

    send: Callable[[Slot], Any]
    begin: Callable[[], None]
    what: str
    limit: float | None = None
    losses: int = 0


@dataclass(eq=False)
class Slot:
    """One actor, as the driver sees it.

    Args:
        number: from 1; a replacement has the number of the slot that was lost.
        actor: Ray's handle.
        waits_for: the answer that it owes: to `prepare`, or to its task.
        facts: what it said when it was ready; `None` before.
        task: what it does.
        since: the clock when the task was given.
    """

    number: int
    actor: Any
    waits_for: Any
    facts: SlotFacts | None = None
    task: Task | None = None
    since: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Lost:
    """In place of an answer: as many slots as are allowed were lost with a task, for this reason."""

    reason: str


class SlotPool:
    """Slots that live as long as the run.

    Args:
        start: starts slot number n; returns its actor.
        prepare: has an actor read its data; returns the reference of its `SlotFacts`.
        count: how many slots.
        tell: takes a line for the screen.

    Attributes:
        slots: those that are there, by number.
    """

    def __init__(
        self,
        start: Callable[[int], Any],
        prepare: Callable[[Any], Any],
        count: int,
        tell: Callable[[str], None],
    ) -> None:
        self._start, self._prepare, self._tell = start, prepare, tell
        self.slots: dict[int, Slot] = {}
        self._failures = 0  # slots in a row that were lost before they were ready
        for number in range(1, count + 1):
            self.add(number)

    def add(self, number: int) -> None:
        """Starts a slot, in place of the one of this number if there is one."""
        with held_signals():
            actor = self._start(number)
            self.slots[number] = Slot(number, actor, self._prepare(actor))

    def close(self) -> None:
        """Ends all slots."""
        for slot in self.slots.values():
            _kill(slot)
        self.slots = {}

    def wait_until_one_is_ready(self) -> None:
        """Returns when there is a slot to give a task to.

        Raises:
            FedReIDError: if none can be started.
        """
        since = time.monotonic()
        while not any(slot.facts for slot in self.slots.values()):
            self._check_patience(since)
            for slot in self._arrived():
                self._become_ready(slot)

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Slot, Any]]:
        """Gives the tasks to slots, the first ones first; yields (task, slot, answer or `Lost`) as answers arrive.

        A task whose slot is lost is given to another slot before all others.

        Raises:
            FedReIDError: if there is no slot left and none can be started, or a slot's data are not the driver's.
        """
        waiting, open_tasks = list(tasks), len(tasks)
        mine, without_slot = {id(task) for task in tasks}, time.monotonic()
        while open_tasks:
            if self._give(waiting) or any(slot.task for slot in self.slots.values()):
                without_slot = time.monotonic()
            self._check_patience(without_slot)
            for slot, hangs in self._due():
                if slot.facts is None:
                    self._become_ready(slot)
                    continue
                task, answer = slot.task, self._lose(slot, _overdue(slot)) if hangs else self._take(slot)
                if task is None or id(task) not in mine:
                    continue  # of a pass that was given up
                if isinstance(answer, Lost):
                    task.losses += 2 if hangs else 1
                    if task.losses < MOST_LOSSES:
                        self._tell(f"warning: {answer.reason} while {task.what}; another slot does it")
                        waiting.insert(0, task)
                        continue
                self._give(waiting)  # before anything is done with the answer
                open_tasks -= 1
                yield task, slot, answer

    def _give(self, waiting: list[Task]) -> bool:
        """Gives waiting tasks to idle slots; returns whether there was one to give."""
        given = False
        for slot in self.slots.values():
            if waiting and slot.facts is not None and slot.task is None:
                task = waiting.pop(0)
                if not task.losses:
                    task.begin()
                with held_signals():
                    slot.waits_for, slot.task, slot.since = task.send(slot), task, time.monotonic()
                given = True
        return given

    def _arrived(self) -> list[Slot]:
        """The slots whose answer, or whose loss, is known; waits a moment for the first one."""
        owed = {slot.waits_for: slot for slot in self.slots.values() if slot.waits_for is not None}
        if not owed:
            time.sleep(TICK)
            return []
        with held_signals():
            ready, _ = ray.wait(list(owed), num_returns=1, timeout=TICK)
        return [owed[reference] for reference in ready]

    def _due(self) -> list[tuple[Slot, bool]]:
        """(slot, `False`) for what has arrived, (slot, `True`) for slots whose task takes longer than it may."""
        arrived = self._arrived()
        now = time.monotonic()
        hang = [
            slot
            for slot in self.slots.values()
            if slot not in arrived and slot.task and slot.task.limit and now - slot.since > slot.task.limit
        ]
        return [*((slot, False) for slot in arrived), *((slot, True) for slot in hang)]

    def _take(self, slot: Slot) -> Any:
        """The answer of a slot, which is idle then; an error that its code raised; or `Lost`."""
        try:
            with held_signals():
                answer = ray.get(slot.waits_for)
        except RayTaskError as error:  # the slot is well
            answer = error
        except RayError as error:
            return self._lose(slot, f"slot {slot.number} was lost ({_reason(error)})")
        slot.task = slot.waits_for = None
        return answer

    def _lose(self, slot: Slot, reason: str) -> Lost:
        """Ends a slot and starts another one in its place."""
        _kill(slot)
        self.add(slot.number)
        return Lost(reason)

    def _become_ready(self, slot: Slot) -> None:
        try:
            with held_signals():
                facts: SlotFacts = ray.get(slot.waits_for)
        except RayTaskError as error:
            raise FedReIDError(f"engine=ray: slot {slot.number} cannot start: {last_line(error)}") from error
        except RayError as error:
            self._failures += 1
            if self._failures >= MOST_LOSSES * max(len(self.slots), 1):
                raise FedReIDError(f"engine=ray: slots end before they are ready: {_reason(error)}") from error
            _kill(slot)
            self.add(slot.number)
            return
        if facts.problem:
            raise FedReIDError(f"engine=ray: slot {slot.number} on {facts.machine}: {facts.problem}")
        self._failures = 0
        slot.facts, slot.waits_for = facts, None

    def _check_patience(self, since: float) -> None:
        if time.monotonic() - since > PATIENCE:
            raise FedReIDError(
                f"engine=ray: no slot was ready for {PATIENCE:.0f} s; are there processors and GPUs that nobody uses? "
                "Lower engine.slots, engine.cpus_per_client or engine.gpus_per_client"
            )


def _overdue(slot: Slot) -> str:
    return f"slot {slot.number} hangs, there is no answer after {time.monotonic() - slot.since:.0f} s"


def _kill(slot: Slot) -> None:
    with held_signals():
        ray.kill(slot.actor)


def _reason(error: BaseException) -> str:
    """Why a slot was lost, in few words."""
    text = " ".join(str(error).split())
    if "memory" in text.lower() and ("oom" in text.lower() or "OutOfMemory" in type(error).__name__):
        return "it was ended for lack of memory"
    return type(error).__name__


def last_line(error: BaseException) -> str:
    """The last line of an error, in which Ray quotes what was raised."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1][:300]
