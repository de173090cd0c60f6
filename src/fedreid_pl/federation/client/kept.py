"""Checks a client's saved state against the client's data and network before the state is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def check_kept(state: Mapping[str, Any], head: Mapping[str, Tensor], backbone: Mapping[str, Tensor]) -> None:
    """Checks that a saved state belongs to this client.

    Args:
        state: content of the client's file.
        head: state dict of a head that fits the client's data.
        backbone: state dict of the network.

    Raises:
        ValueError: if a part does not fit; the message names the part.
    """
    for part, like in (("head", head), ("backbone", backbone)):
        if part in state:
            _check_tensors(part, state[part], like)
    callbacks = state.get("callbacks", {})
    if not isinstance(callbacks, dict) or not all(isinstance(kept, dict) for kept in callbacks.values()):
        raise ValueError("the saved state of the callbacks is not a dictionary of dictionaries")


def _check_tensors(part: str, found: Any, like: Mapping[str, Tensor]) -> None:
    wanted = {name: (value.shape, value.dtype) for name, value in like.items()}
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"the saved {part} is not a dictionary of tensors")
    if {name: (value.shape, value.dtype) for name, value in found.items()} != wanted:
        raise ValueError(
            f"the saved {part} has other tensor names, shapes or dtypes than this client's data and network need"
        )
