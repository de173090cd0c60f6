"""Random numbers that can be repeated only with a secret key of 256 bits."""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

KEY_BYTES = 32
CHUNK = 2**16
"""Numbers per call of the hash function; it also bounds the memory."""


def new_key() -> bytes:
    """Returns a key of 256 bits from the operating system's cryptographic generator."""
    return secrets.token_bytes(KEY_BYTES)


class SecretStream:
    """Uniform and Gaussian numbers from SHAKE-256 over a key, a purpose and a counter.

    SHAKE-256 (FIPS 202) with the key in front is a pseudorandom function: without the key its output looks like random
    bits, and the output does not reveal the key. Each instance starts its stream from the beginning, so use a pair of
    key and purpose only once. All 256 bits of the key count. (Of the seed of its CPU generator, torch uses only 32
    bits.)

    Args:
        key: a key from `new_key`.
        purpose: name of the use of the numbers; another name gives another stream.

    Raises:
        ValueError: if the key does not have `KEY_BYTES` bytes.

    >>> SecretStream(bytes(32), "noise").normal((2, 3)).shape
    torch.Size([2, 3])
    """

    def __init__(self, key: bytes, purpose: str) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
        self._start = hashlib.shake_256(key + purpose.encode() + b"\0")
        self._counter = 0

    def uniform(self, count: int) -> np.ndarray:
        """Returns uniform numbers in (0, 1] with 53 random bits each, `[count]` float64."""
        return np.concatenate([*self._chunks(count), np.empty(0)])

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Returns independent standard normal float64 numbers of the given shape (Box and Muller, 1958)."""
        count = math.prod(shape)
        half = (count + 1) // 2
        radius = np.sqrt(-2.0 * np.log(self.uniform(half)))
        angle = 2.0 * math.pi * self.uniform(half)
        both = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
        return torch.from_numpy(both[:count]).reshape(tuple(shape))

    def _chunks(self, count: int) -> Iterator[np.ndarray]:
        for begin in range(0, count, CHUNK):
            size = min(CHUNK, count - begin)
            block = self._start.copy()
            block.update(self._counter.to_bytes(8, "little"))
            self._counter += 1
            words = np.frombuffer(block.digest(8 * size), dtype="<u8")
            yield ((words >> np.uint64(11)) + 1.0) * 2.0**-53
