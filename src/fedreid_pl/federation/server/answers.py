"""Answers in the order of the jobs, whatever the order in which an engine brings them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from fedreid_pl.federation.messages import ClientFailure, ClientJob, ClientUpdate

Outcome = ClientUpdate | ClientFailure
Taken = TypeVar("Taken")


def in_job_order(
    ask: Callable[[Iterable[ClientJob]], Iterable[Outcome]],
    jobs: Iterable[ClientJob],
    take: Callable[[ClientJob | None, Outcome], Taken],
) -> Iterator[tuple[ClientJob, Taken | None]]:
    """Yields (job, what `take` made of its answer) in the order in which the jobs were sent.

    An answer is given to `take` when it arrives and held back until the jobs before it are answered; an engine that
    does one job after the other therefore waits for nothing. What equal runs record is equal on every engine.

    Args:
        ask: `fit` or `evaluate` of an engine; it may draw jobs as it goes.
        jobs: at most one for a client.
        take: checks an answer; its job is `None` for an answer that nobody asked for, or that comes twice, and what
            it makes of that is dropped.

    Yields:
        `(job, None)` for a job without an answer.
    """
    waiting: deque[ClientJob] = deque()
    unanswered: dict[str, ClientJob] = {}
    held: dict[str, Taken] = {}

    def sending() -> Iterator[ClientJob]:
        for job in jobs:
            waiting.append(job)
            unanswered[job.client] = job
            yield job

    for outcome in ask(sending()):
        job = unanswered.pop(outcome.client, None)
        taken = take(job, outcome)
        if job is None:
            continue
        held[job.client] = taken
        while waiting and waiting[0].client in held:
            first = waiting.popleft()
            yield first, held.pop(first.client)
    for job in waiting:
        yield job, held.pop(job.client, None)
