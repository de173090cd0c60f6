"""The secret stream compared with SHAKE-256, statistics, and a comparison with torch's 32-bit seeds."""

from __future__ import annotations

import hashlib
import math

import pytest
import torch
from scipy.stats import kstest

from fedreid_pl.functional.secret_noise import CHUNK, KEY_BYTES, SecretStream, new_key

KEY = bytes(range(32))


def test_the_stream_is_shake_256_over_key_purpose_and_counter() -> None:
    count = CHUNK + 3
    given = SecretStream(KEY, "noise").uniform(count)
    for place in (0, 1, CHUNK - 1, CHUNK, CHUNK + 2):
        block, offset = divmod(place, CHUNK)
        text = KEY + b"noise" + b"\0" + block.to_bytes(8, "little")
        word = hashlib.shake_256(text).digest(8 * (offset + 1))[-8:]
        assert given[place] == ((int.from_bytes(word, "little") >> 11) + 1) / 2**53
    assert len(given) == count and given.min() > 0 and given.max() <= 1


def test_gaussian_numbers_are_box_and_muller_of_the_stream() -> None:
    stream = SecretStream(KEY, "x")
    first, second = stream.uniform(3).tolist(), stream.uniform(3).tolist()
    wanted = [math.sqrt(-2 * math.log(a)) * math.cos(2 * math.pi * b) for a, b in zip(first, second, strict=True)]
    wanted += [math.sqrt(-2 * math.log(a)) * math.sin(2 * math.pi * b) for a, b in zip(first, second, strict=True)]
    given = SecretStream(KEY, "x").normal((5, 1))
    assert given.shape == (5, 1) and given.dtype == torch.float64
    assert given.flatten().tolist() == pytest.approx(wanted[:5], rel=1e-12)


def test_the_numbers_are_independent_and_normally_distributed() -> None:
    values = SecretStream(new_key(), "test").normal((60_000,)).numpy()
    assert kstest(values, "norm").pvalue > 1e-4
    for lag in (1, 2, 30_000):  # both numbers of a pair are 30,000 apart
        assert abs((values[:-lag] * values[lag:]).mean()) < 5 / math.sqrt(len(values) - lag)


def test_every_bit_of_the_key_matters_although_torch_uses_32() -> None:
    torchs = {float(torch.randn(1, generator=torch.Generator().manual_seed(7 + (high << 32)))) for high in range(8)}
    assert len(torchs) == 1, "seeds that differ above 32 bits give one stream"
    seen = {float(SecretStream(KEY, "noise").normal((1,)))}
    for bit in range(8 * KEY_BYTES):
        other = bytearray(KEY)
        other[bit // 8] ^= 1 << (bit % 8)
        seen.add(float(SecretStream(bytes(other), "noise").normal((1,))))
    assert len(seen) == 1 + 8 * KEY_BYTES
    assert len({new_key() for _ in range(50)}) == 50
    assert float(SecretStream(KEY, "selection").normal((1,))) not in seen
    with pytest.raises(ValueError, match="32 bytes, not 8"):
        SecretStream(bytes(8), "noise")
