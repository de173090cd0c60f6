"""Seeds derived from their purpose, so that results do not depend on the order of work."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import torch


def derive_seed(*parts: int | str) -> int:
    """Returns a seed in `0 .. 2**63 - 1` that depends on every part, e.g. (run seed, round, client, purpose).

    The seed is taken from the SHA-256 of the parts. It does not depend on Python's hash seed, the process or the
    machine.

    >>> derive_seed(0, 1, "viper") == derive_seed(0, 1, "viper") != derive_seed(0, 2, "viper")
    True
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """Returns a CPU generator seeded with `derive_seed(*parts)`."""
    import torch  # imported here: listing a folder of images needs seeds but no torch, which takes seconds to import

    return torch.Generator().manual_seed(derive_seed(*parts))


def seed_generators(seed: int) -> None:
    """Seeds torch's global generators, from which modules such as dropout draw.

    Without a GPU, only the CPU generator is seeded: `torch.manual_seed` would also store the seed for devices that
    might be initialised later, which takes a quarter of a millisecond and memory at every call.
    """
    import torch

    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def undisturbed(device: torch.device) -> AbstractContextManager[None]:
    """Returns a context that restores the state of the CPU generator and of the generator of `device` at its end."""
    import torch

    return torch.random.fork_rng([device] if device.type == "cuda" else [])
