"""Orders jobs by their expected duration, and computes how well the slots were used."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from fedreid_pl.federation.messages import ClientJob

TRAINED, TESTED = 3.0, 1.0
"""Relative cost of an image in training (with the backward pass) and in evaluation."""
PATIENCE, FACTOR = 300.0, 20.0
"""Without `client_timeout`, a job hangs after more than `PATIENCE` seconds and `FACTOR` times its expected time."""
GRACE = 30.0  # seconds after `client_timeout` in which a slot can end its turn by itself

Key = tuple[str, str, str]
"""Kind of job, client, test sets."""


def key_of(job: ClientJob) -> Key:
    """Returns the key of a job; jobs with the same key are expected to take equally long."""
    tests = job.config.get("tests") if job.kind == "evaluate" else job.config.get("evaluate")
    return job.kind, job.client, str(tests)


class Schedule:
    """Orders jobs, the longest first: by the last duration of the same job, before that by its number of images.

    Args:
        images: returns the cost of a job in images, see `RayEngine._images`.
        timeout: value of `client_timeout`, in seconds.
    """

    def __init__(self, images: Callable[[ClientJob], float], timeout: float | None = None) -> None:
        self._images, self._timeout = images, timeout
        self._seconds: dict[Key, float] = {}
        self._rate = (0.0, 0.0)  # sums of seconds and of images

    def note(self, job: ClientJob, seconds: float) -> None:
        """Records how many seconds a job took."""
        self._seconds[key_of(job)] = seconds
        self._rate = (self._rate[0] + seconds, self._rate[1] + self._images(job))

    def expected(self, job: ClientJob) -> float | None:
        """Returns the expected seconds of a job, `None` before the first measurement."""
        if (known := self._seconds.get(key_of(job))) is not None:
            return known
        seconds, images = self._rate
        return self._images(job) * seconds / images if images else None

    def order(self, jobs: list[ClientJob]) -> list[int]:
        """Returns the indices of the jobs, the longest job first; equal jobs keep their order."""
        costs = [self._images(job) if (found := self.expected(job)) is None else found for job in jobs]
        return sorted(range(len(jobs)), key=lambda place: -costs[place])

    def limit(self, job: ClientJob) -> float | None:
        """Returns the seconds after which a job counts as hanging; `None` disables this limit."""
        if self._timeout is not None:
            return 1.1 * self._timeout + GRACE
        expected = self.expected(job)
        return None if expected is None else max(PATIENCE, FACTOR * expected)


class Pass(NamedTuple):
    """Durations of the jobs of one pass over the clients.

    Args:
        seconds: seconds of every job, by client.
        clock: seconds from the start of the first job to the end of the last job.
        slots: number of slots.
    """

    seconds: dict[str, float]
    clock: float
    slots: int

    @property
    def sum(self) -> float:
        """Returns the seconds that a single slot would take."""
        return sum(self.seconds.values())

    @property
    def longest(self) -> str:
        """Returns the client whose job took longest."""
        return max(self.seconds, key=self.seconds.__getitem__)

    @property
    def bound(self) -> float:
        """Returns a lower bound of the pass with `slots` slots, in seconds.

        >>> Pass({"a": 4.0, "b": 1.0, "c": 1.0}, 4.5, 2).bound
        4.0
        """
        return max(self.sum / self.slots, self.seconds[self.longest])

    @property
    def most(self) -> float:
        """Returns the largest possible speedup over one slot, with any number of slots.

        >>> Pass({"a": 4.0, "b": 1.0, "c": 1.0}, 4.5, 2).most
        1.5
        """
        return self.sum / self.seconds[self.longest]


def verdict(first: Pass, start: float, rounds: int) -> list[str]:
    """Returns lines to print: the time that the slots save, its limit, and a warning if the run is too short for Ray.

    Args:
        first: durations of the training in the first round.
        start: seconds that Ray and the slots took to start.
        rounds: number of rounds that the run still trains, including this round.

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
