"""Random splits and pseudo cameras that are the same on every machine and file system."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np

from fedreid_pl.errors import FedReIDError
from fedreid_pl.functional.randomness import derive_seed

Item = TypeVar("Item", int, str)


def random_state(*purpose: int | str) -> np.random.RandomState:
    """Returns random numbers for one purpose, such as `(seed, split, "viper")`, without use of numpy's global state.

    numpy guarantees the stream of `RandomState` for all versions, but not that of newer generators. Any later version
    must reproduce a split that was reported once.
    """
    return np.random.RandomState(derive_seed(*purpose) % 2**32)


def shuffled(items: Iterable[Item], state: np.random.RandomState) -> list[Item]:
    """Returns the different items in random order, independent of their original order.

    >>> shuffled([3, 1, 2, 3], np.random.RandomState(0)) == shuffled([2, 3, 1], np.random.RandomState(0))
    True
    """
    ordered = sorted(set(items))
    return [ordered[place] for place in state.permutation(len(ordered))]


def shuffled_persons(persons: Iterable[int], state: np.random.RandomState, folder: Path) -> list[int]:
    """Returns persons in random order, for a split into training and test.

    Raises:
        FedReIDError: if there are fewer than two persons; the message names `folder`.
    """
    order = shuffled(persons, state)
    if len(order) < 2:
        raise FedReIDError(f"{folder}: {len(order)} person(s), but a split into train and test needs at least 2")
    return order


def draw_halves(
    persons: Iterable[int], state: np.random.RandomState, folder: Path
) -> tuple[frozenset[int], frozenset[int]]:
    """Returns a random half of the persons (rounded down) for training, and the others for the test.

    Raises:
        FedReIDError: if there are fewer than two persons.

    >>> train, test = draw_halves(range(1, 972), np.random.RandomState(0), Path("CUHK01"))
    >>> len(train), len(test), train & test
    (485, 486, frozenset())
    """
    order = shuffled_persons(persons, state, folder)
    half = len(order) // 2
    return frozenset(order[:half]), frozenset(order[half:])
