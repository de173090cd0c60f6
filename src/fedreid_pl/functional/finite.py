"""Search for NaN and infinite values in a state dict."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

import torch
from torch import Tensor


def first_not_finite(state: Mapping[str, Tensor]) -> str | None:
    """Returns the name of the first tensor with NaN or infinite values, or `None`. Integer tensors count as finite.

    A sum is finite only if all its values are, and a sum is several times faster than a check of every value. Only if
    the sum is not finite, the function checks every value, because large finite values can overflow too.

    >>> first_not_finite({"a": torch.ones(2), "b": torch.tensor([1.0, float("inf")])})
    'b'
    >>> first_not_finite({"large": torch.full((2,), 3e38)}) is None
    True
    """
    for name, value in state.items():
        if value.is_floating_point() and not (isfinite(value.sum()) or torch.isfinite(value).all()):
            return name
    return None
