"""The pool of slots: gives tasks to idle slots, and replaces slots that end or hang."""

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

TICK = 1.0  # seconds between two checks of the time limits while no reply arrives
MOST_LOSSES = 3  # number of lost slots after which a task fails
PATIENCE = 180.0  # seconds to wait for a slot that is ready


@dataclass
class Task:
    """A task for a slot.

    Args:
        send: sends the task to a slot's actor; returns the reference of the reply.
        begin: called when a slot gets the task for the first time.
        what: description for messages, such as "training mini-viper".
        limit: seconds after which the slot counts as hanging; `None` disables the limit.
        losses: number of slots that were lost during this task; a slot that hangs counts twice.
    """

    send: Callable[[Slot], Any]
    begin: Callable[[], None]
    what: str
    limit: float | None = None
    losses: int = 0


@dataclass(eq=False)
class Slot:
    """The driver's record of one actor.

    Args:
        number: number of the slot, from 1; a replacement gets the number of the lost slot.
        actor: Ray's handle of the actor.
        waits_for: reference of the reply that is expected, to `prepare` or to the task.
        facts: the slot's description of itself; `None` until the slot is ready.
        task: the current task; `None` if the slot is idle.
        since: `time.monotonic()` when the slot got the task.
    """

    number: int
    actor: Any
    waits_for: Any
    facts: SlotFacts | None = None
    task: Task | None = None
    since: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Lost:
    """Stands in place of a reply: the slot of a task was lost, for `reason`.

    `SlotPool.run` yields it once a task has lost `MOST_LOSSES` slots.
    """

    reason: str


class SlotPool:
    """A fixed number of slots that live as long as the run.

    Args:
        start: starts the slot with the given number; returns its actor.
        prepare: makes an actor read its data; returns the reference of its `SlotFacts`.
        count: number of slots.
        tell: prints a line.

    Attributes:
        slots: the current slots, by number.
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
        self._failures = 0  # consecutive slots that ended before they were ready
        for number in range(1, count + 1):
            self.add(number)

    def add(self, number: int) -> None:
        """Starts a slot with this number; replaces the record of an earlier slot with the same number."""
        with held_signals():
            actor = self._start(number)
            self.slots[number] = Slot(number, actor, self._prepare(actor))

    def close(self) -> None:
        """Ends all slots."""
        for slot in self.slots.values():
            _kill(slot)
        self.slots = {}

    def wait_until_one_is_ready(self) -> None:
        """Waits until one slot is ready for a task.

        Raises:
            FedReIDError: if no slot starts.
        """
        since = time.monotonic()
        while not any(slot.facts for slot in self.slots.values()):
            self._check_patience(since)
            for slot in self._arrived():
                self._become_ready(slot)

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Slot, Any]]:
        """Gives the tasks to slots in order; yields (task, slot, reply or `Lost`) as replies arrive.

        If a slot is lost, its task goes to the next idle slot, before all other tasks.

        Raises:
            FedReIDError: if no slot is left and none starts, or the data of a slot differ from the driver's.
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
                    continue  # the task belongs to an earlier pass that was stopped
                if isinstance(answer, Lost):
                    task.losses += 2 if hangs else 1
                    if task.losses < MOST_LOSSES:
                        self._tell(f"warning: {answer.reason} while {task.what}; another slot repeats this task")
                        waiting.insert(0, task)
                        continue
                self._give(waiting)  # the slot works on while the caller handles the reply
                open_tasks -= 1
                yield task, slot, answer

    def _give(self, waiting: list[Task]) -> bool:
        """Gives waiting tasks to idle slots; returns whether any slot got a task."""
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
        """Returns the slots that have replied or are lost; waits up to `TICK` seconds for the first of them."""
        owed = {slot.waits_for: slot for slot in self.slots.values() if slot.waits_for is not None}
        if not owed:
            time.sleep(TICK)
            return []
        with held_signals():
            ready, _ = ray.wait(list(owed), num_returns=1, timeout=TICK)
        return [owed[reference] for reference in ready]

    def _due(self) -> list[tuple[Slot, bool]]:
        """Returns (slot, `False`) for a slot that has replied or is lost, (slot, `True`) for a slot over its limit."""
        arrived = self._arrived()
        now = time.monotonic()
        hang = [
            slot
            for slot in self.slots.values()
            if slot not in arrived and slot.task and slot.task.limit and now - slot.since > slot.task.limit
        ]
        return [*((slot, False) for slot in arrived), *((slot, True) for slot in hang)]

    def _take(self, slot: Slot) -> Any:
        """Returns the reply of a slot, the error that its code raised, or `Lost`; marks the slot as idle."""
        try:
            with held_signals():
                answer = ray.get(slot.waits_for)
        except RayTaskError as error:  # the code raised, the process still works
            answer = error
        except RayError as error:
            return self._lose(slot, f"slot {slot.number} was lost ({_reason(error)})")
        slot.task = slot.waits_for = None
        return answer

    def _lose(self, slot: Slot, reason: str) -> Lost:
        """Ends a slot and starts a replacement; returns `Lost` with the reason."""
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
                f"engine=ray: no slot was ready for {PATIENCE:.0f} s; free processors or GPUs, or lower "
                "engine.slots, engine.cpus_per_client or engine.gpus_per_client"
            )


def _overdue(slot: Slot) -> str:
    return f"slot {slot.number} hangs, there is no answer after {time.monotonic() - slot.since:.0f} s"


def _kill(slot: Slot) -> None:
    with held_signals():
        ray.kill(slot.actor)


def _reason(error: BaseException) -> str:
    """Returns a short reason why a slot was lost."""
    text = " ".join(str(error).split())
    if "memory" in text.lower() and ("oom" in text.lower() or "OutOfMemory" in type(error).__name__):
        return "it was ended for lack of memory"
    return type(error).__name__


def last_line(error: BaseException) -> str:
    """Returns the last line of an error; in a Ray error, this line quotes the original exception."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1][:300]
