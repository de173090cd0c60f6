"""Whatever the order in which answers arrive, they are handed on in the order of the jobs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import pytest
import support

from fedreid_pl.federation.messages import ClientFailure, ClientJob
from fedreid_pl.federation.server.answers import Outcome, in_job_order


def answered(order: Iterable[str]) -> tuple[list[tuple[str, str | None]], list[str]]:
    """What comes out, and in which order it arrived, of clients a, b and c that answer in `order`."""
    arrived: list[str] = []

    def ask(jobs: Iterable[ClientJob]) -> Iterator[Outcome]:
        list(jobs)
        yield from (ClientFailure(1, client, "x") for client in order)

    def take(job: ClientJob | None, outcome: Outcome) -> str:
        arrived.append(f"{outcome.client}{'' if job else '!'}")
        return outcome.client.upper()

    jobs = [support.fit_job(1, client) for client in "abc"]
    return [(job.client, taken) for job, taken in in_job_order(ask, jobs, take)], arrived


@pytest.mark.parametrize("order", list(itertools.permutations("abc")))
def test_every_order_of_arrival_comes_out_the_same(order: tuple[str, ...]) -> None:
    assert answered(order) == ([("a", "A"), ("b", "B"), ("c", "C")], list(order))


def test_the_silent_are_told_and_nobody_answers_twice_or_unasked() -> None:
    assert answered("cxac") == ([("a", "A"), ("b", None), ("c", "C")], ["c", "x!", "a", "c!"])


def test_one_job_after_the_other_waits_for_nothing() -> None:
    events: list[str] = []

    def ask(jobs: Iterable[ClientJob]) -> Iterator[Outcome]:
        for job in jobs:
            events.append(f"work {job.client}")
            yield ClientFailure(1, job.client, "x")

    for job, _ in in_job_order(ask, [support.fit_job(1, client) for client in "ab"], lambda job, outcome: None):
        events.append(f"done {job.client}")
    assert events == ["work a", "done a", "work b", "done b"]
