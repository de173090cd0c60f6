"""Updates of a hostile client: every entry alters an honest update so that the server must refuse it.

The entries do not depend on an engine. `reliability/test_bad_updates.py` sends them through the sequential engine,
`engines/test_ray.py` through Ray, and `silos/test_hostile_silo.py` from a silo that signs them with its own key.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from dataclasses import replace

import torch

from fedreid_pl.federation.messages import ClientFailure, ClientUpdate

Spoil = Callable[[ClientUpdate], list[ClientUpdate | ClientFailure]]
State = dict[str, torch.Tensor]


def tensors(change: Callable[[State], State]) -> Spoil:
    """Replaces the backbone."""
    return lambda update: [replace(update, backbone=change(dict(update.backbone)))]


def first_of(state: State, value: torch.Tensor) -> State:
    """Returns the state with another first tensor."""
    return {**state, next(iter(state)): value}


def filled(number: float) -> Spoil:
    """Sets all elements of the first tensor to one number."""
    return tensors(lambda state: first_of(state, torch.full_like(next(iter(state.values())), number)))


def one_number(number: float) -> Spoil:
    """Sets one element of the last floating-point tensor to `number`."""

    def change(state: State) -> State:
        name = [name for name, value in state.items() if value.is_floating_point() and value.numel()][-1]
        value = state[name].clone()
        value.view(-1)[-1] = number
        return {**state, name: value}

    return tensors(change)


def metrics(**lies: float) -> Spoil:
    """Adds or replaces metrics; `__` in a name means a slash."""
    named = {name.replace("__", "/"): value for name, value in lies.items()}
    return lambda update: [replace(update, metrics={**update.metrics, **named})]


def extras(**more: torch.Tensor) -> Spoil:
    """Adds undeclared tensors."""
    return lambda update: [replace(update, extras={**update.extras, **more})]


CODE = torch.frombuffer(bytearray(pickle.dumps(print)), dtype=torch.uint8)
"""A tensor of bytes with a pickle that calls a function."""

UPDATES: dict[str, Spoil] = {
    "NaN": filled(math.nan),
    "infinite": filled(math.inf),
    "one NaN": one_number(math.nan),
    "one infinite number": one_number(-math.inf),
    "shape": tensors(lambda state: first_of(state, torch.zeros(3, 2, 1))),
    "a dimension more": tensors(lambda state: {name: value[None] for name, value in state.items()}),
    "an empty tensor": tensors(lambda state: first_of(state, torch.zeros(0))),
    "missing tensor": tensors(lambda state: dict(list(state.items())[1:])),
    "further tensor": tensors(lambda state: {**state, "head.weight": torch.zeros(4)}),
    "renamed tensor": tensors(lambda state: {f"{name}.": value for name, value in state.items()}),
    "a path as a name": tensors(lambda state: {**state, "../../clients/head": torch.zeros(4)}),
    "a name with terminal control characters": tensors(lambda state: {**state, "\x1b[2J\n": torch.zeros(4)}),
    "a name of a million characters": tensors(lambda state: {**state, "x" * 10**6: torch.zeros(4)}),
    "dtype": tensors(lambda state: {name: value.double() for name, value in state.items()}),
    "half precision": tensors(lambda state: {name: value.half() for name, value in state.items()}),
    "complex numbers": tensors(lambda state: first_of(state, next(iter(state.values())).to(torch.complex64))),
    "no tensors": tensors(lambda state: {}),
    "code in extras": extras(__reduce__=CODE),
    "pictures in extras": extras(images=torch.zeros(2, 3, 4, 4)),
    "stale round": lambda update: [replace(update, round=update.round - 1)],
    "round to come": lambda update: [replace(update, round=update.round + 1)],
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
    "a metric that breaks lines": metrics(**{"train__a\nb": 1.0}),
    "a metric that is no text": metrics(**{"train__\ud800": 1.0}),
    "failure": lambda update: [ClientFailure(update.round, update.client, "RuntimeError", "out of memory")],
    "silence": lambda update: [],
}
"""Maps a defect to the function that makes the update. The hostile client is the last one of `support.TINY`."""
