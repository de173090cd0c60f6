"""Splits and pseudo cameras that are drawn: the same on every machine, whatever a file system lists first."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np

from fedreid_pl.errors import FedReIDError
from fedreid_pl.functional.randomness import derive_seed

Item = TypeVar("Item", int, str)


def random_state(*purpose: int | str) -> np.random.RandomState:
    """Random numbers for one purpose, such as `(seed, split, "viper")`; numpy's global state is left alone.

    `RandomState` because numpy keeps its stream for ever, which it promises for no newer generator: a split that was
    reported once must be drawn again by any later version.
    """
    return np.random.RandomState(derive_seed(*purpose) % 2**32)


def shuffled(items: Iterable[Item], state: np.random.RandomState) -> list[Item]:
    """The different items, sorted and then brought into the order `state.permutation` draws.

    >>> shuffled([3, 1, 2, 3], np.random.RandomState(0)) == shuffled([2, 3, 1], np.random.RandomState(0))
    True
    """
    ordered = sorted(set(items))
    return [ordered[place] for place in state.permutation(len(ordered))]


def shuffled_persons(persons: Iterable[int], state: np.random.RandomState, folder: Path) -> list[int]:
    """`shuffled`, for persons that are to be split into train and test.

    Raises:
        FedReIDError: if there are fewer than two; the message names `folder`.
    """
    order = shuffled(persons, state)
    if len(order) < 2:
        raise FedReIDError(f"{folder}: {len(order)} person(s) to split into train and test, which takes at least 2")
    return order


def draw_halves(
    persons: Iterable[int], state: np.random.RandomState, folder: Path
) -> tuple[frozenset[int], frozenset[int]]:
    """Half of the persons (rounded down) for training, the others for the test.

    Raises:
        FedReIDError: if there are fewer than two persons.

    >>> train, test = draw_halves(range(1, 972), np.random.RandomState(0), Path("CUHK01"))
    >>> len(train), len(test), train & test
    (485, 486, frozenset())
    """
    order = shuffled_persons(persons, state, folder)
    half = len(order) // 2
    return frozenset(order[:half]), frozenset(order[half:])
