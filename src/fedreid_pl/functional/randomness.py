"""Seeds derived from what they are for, so that results do not depend on the order of work."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import torch


def derive_seed(*parts: int | str) -> int:
    """A seed in `0 .. 2**63 - 1` that depends on every part, e.g. (run seed, round, client, purpose).

    SHA-256 of the parts: independent of Python's hash seed, the process and the machine.

    >>> derive_seed(0, 1, "viper") == derive_seed(0, 1, "viper") != derive_seed(0, 2, "viper")
    True
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A CPU generator seeded with `derive_seed(*parts)`."""
    import torch  # not above: reading a folder of pictures needs seeds and no torch, which takes seconds to import

    return torch.Generator().manual_seed(derive_seed(*parts))


def seed_generators(seed: int) -> None:
    """Seeds what modules such as dropout draw from: `torch.manual_seed` where there is a GPU.

    Where there is none, only the processor's generator is seeded: torch would note the seed for devices of every kind
    that might be found later, which takes a quarter of a millisecond and memory each time.
    """
    import torch

    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def undisturbed(device: torch.device) -> AbstractContextManager[None]:
    """Returns a context after which the generators of the processor and of `device` are as they were before."""
    import torch

    return torch.random.fork_rng([device] if device.type == "cuda" else [])
