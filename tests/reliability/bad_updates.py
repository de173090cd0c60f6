"""What a client may do wrong: each as a change to its honest update."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch

from fedreid_pl.engines.sequential import SequentialEngine
from fedreid_pl.federation.messages import ClientFailure, ClientJob, ClientUpdate

Spoil = Callable[[ClientUpdate], list[ClientUpdate | ClientFailure]]


def tensors(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Spoil:
    """Sends another backbone."""
    return lambda update: [replace(update, backbone=change(dict(update.backbone)))]


def first_of(state: dict[str, torch.Tensor], value: torch.Tensor) -> dict[str, torch.Tensor]:
    return {**state, next(iter(state)): value}


def filled(number: float) -> Spoil:
    return tensors(lambda state: first_of(state, torch.full_like(next(iter(state.values())), number)))


def metrics(**lies: float) -> Spoil:
    """Adds or replaces metrics; `__` in a name stands for a slash."""
    named = {name.replace("__", "/"): value for name, value in lies.items()}
    return lambda update: [replace(update, metrics={**update.metrics, **named})]


BAD: dict[str, Spoil] = {
    "NaN": filled(math.nan),
    "infinite": filled(math.inf),
    "shape": tensors(lambda state: first_of(state, torch.zeros(3, 2, 1))),
    "missing tensor": tensors(lambda state: dict(list(state.items())[1:])),
    "further tensor": tensors(lambda state: {**state, "head.weight": torch.zeros(4)}),
    "dtype": tensors(lambda state: {name: value.double() for name, value in state.items()}),
    "no tensors": tensors(lambda state: {}),
    "stale round": lambda update: [replace(update, round=update.round - 1)],
    "another's name": lambda update: [replace(update, client="nobody")],
    "negative count": lambda update: [replace(update, num_samples=-5)],
    "no images": lambda update: [replace(update, num_samples=0)],
    "absurd count": lambda update: [replace(update, num_samples=10**12)],
    "one image more": lambda update: [replace(update, num_samples=update.num_samples + 1)],
    "accuracy of 1e300": metrics(train__accuracy=1e300),
    "loss below zero": metrics(train__loss=-1.0),
    "NaN loss": metrics(train__loss=math.nan),
    "another's score": metrics(**{"test__mini-market1501__rank1": 1.0}),
    "Rank-1 of 5": metrics(**{"test__mini-ilids__rank1": 5.0}),
    "failure": lambda update: [ClientFailure(update.round, update.client, "RuntimeError", "out of memory")],
    "silence": lambda update: [],
}


class BadClientEngine(SequentialEngine):
    """A real engine whose client `name` sends what `spoil` makes of its update."""

    name: str
    spoil: Spoil

    def fit(self, jobs: Iterable[ClientJob]) -> Iterator[ClientUpdate | ClientFailure]:
        for outcome in super().fit(jobs):
            if outcome.client == self.name and isinstance(outcome, ClientUpdate):
                yield from self.spoil(outcome)
            else:
                yield outcome


def engine_with(name: str, spoil: Spoil) -> type[BadClientEngine]:
    """The engine's class with one bad client."""
    return type("Engine", (BadClientEngine,), {"name": name, "spoil": staticmethod(spoil)})


def hang(*parts: Any, **named: Any) -> None:
    """A batch that never ends, in Python: what a dead file server or a lost worker looks like."""
    while True:
        time.sleep(0.01)
