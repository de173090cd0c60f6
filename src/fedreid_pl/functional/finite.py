"""Is a state dict free of NaN and infinite values?"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

import torch
from torch import Tensor


def first_not_finite(state: Mapping[str, Tensor]) -> str | None:
    """Name of the first tensor that holds NaN or infinite values, `None` if there is none; integers are finite.

    A sum is finite only if all that is summed is, and is several times faster than to look at every value; only
    where one is not, which large finite values can bring about as well, each value is looked at.

    >>> first_not_finite({"a": torch.ones(2), "b": torch.tensor([1.0, float("inf")])})
    'b'
    >>> first_not_finite({"large": torch.full((2,), 3e38)}) is None
    True
    """
    for name, value in state.items():
        if value.is_floating_point() and not (isfinite(value.sum()) or torch.isfinite(value).all()):
            return name
    return None
