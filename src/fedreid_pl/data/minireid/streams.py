"""Random numbers that are the same on every machine; each purpose has its own seed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

VERSIONS = (1, 2)
VERSION = VERSIONS[-1]
"""Newest version of the benchmark. It is part of every seed. Any change of the images needs a new version."""

T = TypeVar("T")


def seed_of(*key: str | int) -> int:
    """Returns the 128-bit seed of a key such as `("minireid-v2/mini-viper", "camera", 2)`."""
    text = "/".join(str(part) for part in key)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")


class Stream:
    """A stream of random numbers for one key.

    It uses only `random.Random.random`, because Python guarantees the sequence of this function.

    Args:
        key: strings and numbers that name the purpose; equal keys give equal streams.
    """

    def __init__(self, *key: str | int) -> None:
        self._next = random.Random(seed_of(*key)).random

    def between(self, low: float, high: float) -> float:
        """Returns a uniform number in `[low, high)`."""
        return low + (high - low) * self._next()

    def index(self, count: int) -> int:
        """Returns a uniform integer in `0..count-1`."""
        return int(self._next() * count)

    def chance(self, probability: float) -> bool:
        """Returns `True` with the given probability."""
        return self._next() < probability

    def pick(self, options: Sequence[T]) -> T:
        """Returns one of `options`, all with the same probability."""
        return options[self.index(len(options))]

    def weighted(self, table: Sequence[tuple[T, float]]) -> T:
        """Returns the option of a random `(option, weight)` pair, with a probability proportional to its weight."""
        left = self._next() * sum(weight for _, weight in table)
        for option, weight in table:
            left -= weight
            if left < 0:
                return option
        return table[-1][0]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Returns the items in random order (Fisher-Yates)."""
        order = list(items)
        for last in range(len(order) - 1, 0, -1):
            other = self.index(last + 1)
            order[last], order[other] = order[other], order[last]
        return order


def noise_bytes(count: int, *key: str | int) -> np.ndarray:
    """Returns uniform random bytes, `[count]` uint8, from NumPy's Philox generator, whose raw output is stable."""
    words = np.random.Philox(key=seed_of(*key)).random_raw((count + 7) // 8)
    return words.astype("<u8").view(np.uint8)[:count]
