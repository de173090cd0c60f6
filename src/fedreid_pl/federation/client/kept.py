"""What a client kept, held against its data and its network before it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def check_kept(state: Mapping[str, Any], head: Mapping[str, Tensor], backbone: Mapping[str, Tensor]) -> None:
    """Refuses a state that is not of this client.

    Args:
        state: the content of the client's file.
        head: a state of the head that the client's data need.
        backbone: a state of the network.

    Raises:
        ValueError: saying which part does not fit.
    """
    for part, like in (("head", head), ("backbone", backbone)):
        if part in state:
            _check_tensors(part, state[part], like)
    callbacks = state.get("callbacks", {})
    if not isinstance(callbacks, dict) or not all(isinstance(kept, dict) for kept in callbacks.values()):
        raise ValueError("what callbacks kept is no mapping")


def _check_tensors(part: str, found: Any, like: Mapping[str, Tensor]) -> None:
    wanted = {name: (value.shape, value.dtype) for name, value in like.items()}
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"its {part} is no mapping of tensors")
    if {name: (value.shape, value.dtype) for name, value in found.items()} != wanted:
        raise ValueError(f"its {part} does not fit its data or the network")
