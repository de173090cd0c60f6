"""A hash of a model's weights: it shows whether features were computed by a given model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def fingerprint_of(state: Mapping[str, Tensor]) -> str:
    """Returns the SHA-256 of a state dict in hexadecimal, over names, dtypes, shapes and values sorted by name.

    >>> import torch
    >>> one, two = torch.ones(2), torch.zeros(3)
    >>> fingerprint_of({"a": one, "b": two}) == fingerprint_of({"b": two, "a": one})
    True
    >>> fingerprint_of({"a": one}) == fingerprint_of({"a": two})
    False
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\n{value.dtype}\n{tuple(value.shape)}\n".encode())
        if value.numel():
            digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
