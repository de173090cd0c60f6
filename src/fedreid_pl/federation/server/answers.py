"""Puts answers into the order of the jobs, independent of the order in which an engine yields them."""

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
    """Yields each job with the result of `take` for its answer, in the order in which the jobs were sent.

    `take` receives an answer as soon as it arrives. The result waits until the answers to all earlier jobs have
    arrived; an engine that runs one job after another therefore never waits. Equal runs record equal results on every
    engine.

    Args:
        ask: `fit` or `evaluate` of an engine; it may draw jobs from its argument one by one.
        jobs: jobs, at most one per client.
        take: checks an answer. Its job is `None` for an unexpected or repeated answer; the result is then ignored.

    Yields:
        Job and result; `(job, None)` for a job without an answer.
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
