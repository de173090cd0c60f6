"""Jobs of a hostile server: every entry alters an honest job of round 2 or later so that a client must refuse it.

`federation/client/test_hostile_jobs.py` passes them to a worker of the sequential engine and, as a system test, to a
Ray slot; `silos/test_hostile_coordinator.py` signs them with the coordinator's key.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from hostile.updates import CODE, State, first_of

from fedreid_pl.federation.messages import ClientJob, Plain

Alter = Callable[[ClientJob], ClientJob]


def backbone(change: Callable[[State], State]) -> Alter:
    """Replaces the backbone and declares its entries as exchanged."""
    return lambda job: job.exchanging(change(dict(job.backbone)))


def values(**more: Plain) -> Alter:
    """Adds or replaces plain values."""
    return lambda job: replace(job, config={**job.config, **more})


def extra(**more: torch.Tensor) -> Alter:
    """Adds tensors beside the backbone."""
    return lambda job: replace(job, extras={**job.extras, **more})


def address(**changes: Any) -> Alter:
    """Changes the round, attempt, session or client."""
    return lambda job: replace(job, **changes)


def full(number: float) -> Alter:
    return backbone(lambda state: first_of(state, torch.full_like(next(iter(state.values())), number)))


JOBS: dict[str, Alter] = {
    "NaN": full(math.nan),
    "infinite": full(math.inf),
    "shape": backbone(lambda state: {name: value[None] for name, value in state.items()}),
    "dtype": backbone(lambda state: {name: value.double() for name, value in state.items()}),
    "missing tensor": backbone(lambda state: dict(list(state.items())[1:])),
    "no tensors": backbone(lambda state: {}),
    "the head by name": backbone(lambda state: {**state, "head.weight": torch.zeros(4)}),
    "the head's layer": backbone(lambda state: {**state, "classifier.weight": torch.zeros(4)}),
    "the head by a pattern": backbone(lambda state: {**state, "*": torch.zeros(4)}),
    "a path as a name": backbone(lambda state: {**state, "../clients/round-00001.pt": torch.zeros(4)}),
    "code in extras": extra(__reduce__=CODE),
    "the head in extras": extra(head=torch.zeros(4)),
    "pictures in extras": extra(images=torch.zeros(2, 3, 4, 4)),
    "older round": lambda job: replace(job, round=job.round - 1, config={**job.config, "starts_from": 0}),
    "no round": address(round=0),
    "round below zero": address(round=-1),
    "round beyond all": address(round=10**7),
    "no attempt": address(attempt=0),
    "another session": address(session="f" * 16),
    "a path as a session": address(session="../../../tmp"),
    "unknown value": values(run_this="rm -rf /"),
    "code as a value": values(optimizer="__import__('os').system('true')"),
    "a path as a value": values(keeps="../../etc/passwd"),
    "a value of another type": values(evaluate="yes"),
    "a number in place of a switch": values(evaluate=1),
    "a value of a million characters": values(keeps="1/" * 10**6 + "1"),
    "starts from a later round": values(starts_from=99),
    "starts from below zero": values(starts_from=-1),
    "a test set by path": values(tests="../../etc"),
}
"""Maps the description of a defect to the function that makes the job."""
