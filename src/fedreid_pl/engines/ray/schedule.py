"""Which job comes first, and how well the slots were used."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from fedreid_pl.federation.messages import ClientJob

TRAINED, TESTED = 3.0, 1.0
"""What an image costs in training, with its backward pass, and in evaluation."""
PATIENCE, FACTOR = 300.0, 20.0
"""A job without `client_timeout` is taken to hang after so many seconds and so many times the seconds expected."""
GRACE = 30.0  # seconds beyond `client_timeout` in which a slot ends its turn by itself

Key = tuple[str, str, str]
"""Kind of job, client, test sets."""


def key_of(job: ClientJob) -> Key:
    """What makes two jobs take equally long."""
    tests = job.config.get("tests") if job.kind == "evaluate" else job.config.get("evaluate")
    return job.kind, job.client, str(tests)


class Schedule:
    """The longest jobs first, by the seconds that the same job took last, or by its images before that.

    Args:
        images: of a job, see `cost_of`.
        timeout: `client_timeout`.
    """

    def __init__(self, images: Callable[[ClientJob], float], timeout: float | None = None) -> None:
        self._images, self._timeout = images, timeout
        self._seconds: dict[Key, float] = {}
        self._rate = (0.0, 0.0)  # sums of seconds and of images

    def note(self, job: ClientJob, seconds: float) -> None:
        """A job has taken so long."""
        self._seconds[key_of(job)] = seconds
        self._rate = (self._rate[0] + seconds, self._rate[1] + self._images(job))

    def expected(self, job: ClientJob) -> float | None:
        """Seconds that a job will take, `None` as long as no job was measured."""
        if (known := self._seconds.get(key_of(job))) is not None:
            return known
        seconds, images = self._rate
        return self._images(job) * seconds / images if images else None

    def order(self, jobs: list[ClientJob]) -> list[int]:
        """Places of the jobs, longest first; equal ones keep their order."""
        costs = [self._images(job) if (found := self.expected(job)) is None else found for job in jobs]
        return sorted(range(len(jobs)), key=lambda place: -costs[place])

    def limit(self, job: ClientJob) -> float | None:
        """Seconds after which the slot that does a job is taken to hang; `None`: never."""
        if self._timeout is not None:
            return 1.1 * self._timeout + GRACE
        expected = self.expected(job)
        return None if expected is None else max(PATIENCE, FACTOR * expected)


class Pass(NamedTuple):
    """How long the jobs of one pass took.

    Args:
        seconds: of every job, by client.
        clock: from the first job's start to the last one's end.
        slots: how many slots there were.
    """

    seconds: dict[str, float]
    clock: float
    slots: int

    @property
    def sum(self) -> float:
        """Seconds that one slot would take."""
        return sum(self.seconds.values())

    @property
    def longest(self) -> str:
        """The client that took longest."""
        return max(self.seconds, key=self.seconds.__getitem__)

    @property
    def bound(self) -> float:
        """The fewest seconds that so many slots can take.

        >>> Pass({"a": 4.0, "b": 1.0, "c": 1.0}, 4.5, 2).bound
        4.0
        """
        return max(self.sum / self.slots, self.seconds[self.longest])

    @property
    def most(self) -> float:
        """How many times faster than one slot any number of slots could be.

        >>> Pass({"a": 4.0, "b": 1.0, "c": 1.0}, 4.5, 2).most
        1.5
        """
        return self.sum / self.seconds[self.longest]


def verdict(first: Pass, start: float, rounds: int) -> list[str]:
    """Returns lines for the screen: what the slots gain, what bounds it, and whether a run is too short for Ray.

    Args:
        first: the first round's training.
        start: seconds that Ray and the slots took to start.
        rounds: that the run still trains, this one included.

    >>> for line in verdict(Pass({"a": 4.0, "b": 3.0, "c": 3.0}, 6.0, 2), 20.0, 3): print(line)
    Ray: 10.0 s of training took 6.0 s in 2 slots, 5.0 s at best; a is 40 % of it: 2.5 times faster is the most
    warning: Ray took 20 s to start and saves about 4.0 s a round, which pays after 5 rounds; this run has 3
    """
    share = 100 / first.most
    lines = [
        f"Ray: {first.sum:.1f} s of training took {first.clock:.1f} s in {first.slots} slots, {first.bound:.1f} s at "
        f"best; {first.longest} is {share:.0f} % of it: {first.most:.1f} times faster is the most"
    ]
    saved = first.sum - first.clock
    if saved <= 0:
        lines.append("warning: the slots save no time in this run; leave engine=ray out")
    elif start / saved > rounds:
        lines.append(
            f"warning: Ray took {start:.0f} s to start and saves about {saved:.1f} s a round, which pays after "
            f"{math.ceil(start / saved)} rounds; this run has {rounds}"
        )
    return lines
