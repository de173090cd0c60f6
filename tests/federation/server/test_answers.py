"""Answers are passed on in the order of the jobs, whatever their order of arrival."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import pytest
import support

from fedreid_pl.federation.messages import ClientFailure, ClientJob
from fedreid_pl.federation.server.answers import Outcome, in_job_order


def answered(order: Iterable[str]) -> tuple[list[tuple[str, str | None]], list[str]]:
    """Returns the answers of clients a, b and c in the passed-on order and in the order of arrival `order`."""
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
def test_the_order_of_arrival_does_not_matter(order: tuple[str, ...]) -> None:
    assert answered(order) == ([("a", "A"), ("b", "B"), ("c", "C")], list(order))


def test_silent_clients_are_reported_and_repeated_or_unexpected_answers_are_separated() -> None:
    assert answered("cxac") == ([("a", "A"), ("b", None), ("c", "C")], ["c", "x!", "a", "c!"])


def test_sequential_answers_are_passed_on_immediately() -> None:
    events: list[str] = []

    def ask(jobs: Iterable[ClientJob]) -> Iterator[Outcome]:
        for job in jobs:
            events.append(f"work {job.client}")
            yield ClientFailure(1, job.client, "x")

    for job, _ in in_job_order(ask, [support.fit_job(1, client) for client in "ab"], lambda job, outcome: None):
        events.append(f"done {job.client}")
    assert events == ["work a", "done a", "work b", "done b"]
