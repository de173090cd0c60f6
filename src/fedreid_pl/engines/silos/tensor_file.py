"""Reads tensors from a safetensors file of another party, after checks of the file's table of tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

DTYPES = frozenset({"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"})
"""Types that a tensor in a file may have. The format has further types that PyTorch cannot read."""
MOST_DIMENSIONS = 8


class MappedTensors(Mapping[str, Tensor]):
    """Tensors of an open safetensors file in the order of the header; the first access maps a tensor into memory.

    Each tensor is mapped only once: it occupies pages of the file, and safetensors 0.8 leaks 32 bytes at every read.

    Args:
        file: file from `safetensors.safe_open`; its path may be deleted meanwhile.
        part: prefix of the names in the file.
        names: names without the prefix.
        orders: order of a tensor's dimensions in memory by full name, for tensors that are not row-major.
    """

    def __init__(self, file: Any, part: str, names: list[str], orders: Mapping[str, list[int]]) -> None:
        self._file, self._part, self._names, self._orders = file, part, dict.fromkeys(names), orders
        self._mapped: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._mapped:
            self._mapped[name] = self._map(name)
        return self._mapped[name]

    def _map(self, name: str) -> Tensor:
        value: Tensor = self._file.get_tensor(f"{self._part}/{name}")
        order = self._orders.get(f"{self._part}/{name}")
        return value if order is None else value.permute([order.index(axis) for axis in range(len(order))])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def oddity(file: Any, names: set[str], orders: Any) -> str | None:
    """Returns what is wrong with the table of an open file, `None` if the table is valid. Reads no tensor.

    Args:
        file: file from `safetensors.safe_open`.
        names: names of all tensors in the header.
        orders: the header's order of dimensions in memory, by name of the tensor.
    """
    if set(file.keys()) != names:
        return "the tensors in the file are not those in the header"
    dimensions: dict[str, int] = {}
    for name in names:
        part = file.get_slice(name)
        dimensions[name] = len(part.get_shape())
        if part.get_dtype() not in DTYPES or dimensions[name] > MOST_DIMENSIONS:
            return "a tensor has a data type that no network uses"
    if type(orders) is not dict or not all(_is_order(dimensions.get(name), order) for name, order in orders.items()):
        return "the header has an invalid order of dimensions"
    return None


def _is_order(dimensions: int | None, order: Any) -> bool:
    if dimensions is None or type(order) is not list or any(type(axis) is not int for axis in order):
        return False
    return sorted(order) == list(range(dimensions))


def memory_order(value: Tensor) -> list[int]:
    """Returns the dimensions from the slowest to the fastest in memory; row-major order for a tensor with gaps."""
    if value.is_contiguous():
        return list(range(value.dim()))
    strides = value.stride()
    order = sorted(range(value.dim()), key=lambda axis: (-strides[axis], axis))
    return order if value.permute(order).is_contiguous() else list(range(value.dim()))


def unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors without shared storage, as the file format requires; clones tensors that share storage."""
    seen: set[int] = set()
    for name, value in tensors.items():
        place = value.untyped_storage().data_ptr()
        if value.numel() and (place in seen or value.untyped_storage().nbytes() != value.nbytes):
            tensors[name] = value.clone()
        seen.add(place)
    return tensors
