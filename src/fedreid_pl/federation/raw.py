"""Converts tensors to their bytes in memory and back, with the same order of dimensions (such as channels-last)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Layout(NamedTuple):
    """Describes how to read the bytes of a dense tensor.

    Args:
        dtype: dtype of the tensor.
        shape: sizes, in the order of memory.
        order: index of the dimension at each place of `shape`.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    order: tuple[int, ...]


def to_raw(value: Tensor) -> tuple[Layout, Tensor]:
    """Returns the layout and the bytes `[bytes]` uint8 of a CPU tensor; the bytes are a view of a dense tensor.

    >>> layout, flat = to_raw(torch.zeros(2, 3).t())
    >>> layout.shape, layout.order, flat.shape
    ((2, 3), (1, 0), torch.Size([24]))
    """
    value = value.detach()
    strides = value.stride()
    order = tuple(sorted(range(value.dim()), key=lambda axis: (-strides[axis], axis)))
    dense = value.permute(order).contiguous()
    return Layout(value.dtype, tuple(dense.shape), order), dense.reshape(-1).view(torch.uint8)


def from_raw(layout: Layout, flat: Tensor) -> Tensor:
    """Returns the tensor that `to_raw` received; it shares memory with `flat`."""
    back = sorted(range(len(layout.order)), key=layout.order.__getitem__)
    if not flat.numel():
        return torch.empty(layout.shape, dtype=layout.dtype).permute(back)
    return flat.view(layout.dtype).view(layout.shape).permute(back)
