"""Checks the tensors of a message against declarations; server and client use the same check."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from fedreid_pl.errors import printable
from fedreid_pl.federation.messages import DeclaredTensor
from fedreid_pl.functional.finite import first_not_finite


def declared_like(state: Mapping[str, Tensor]) -> dict[str, DeclaredTensor]:
    """Returns declarations with the names, shapes and dtypes of the tensors of a state dict."""
    return {name: DeclaredTensor(name, tuple(value.shape), value.dtype) for name, value in state.items()}


def misfit(tensors: Mapping[str, Tensor], wanted: Mapping[str, DeclaredTensor], optional: bool = False) -> str | None:
    """Returns a message about the first tensor that does not fit its declaration, `None` if all tensors fit.

    Args:
        tensors: tensors of the message by name.
        wanted: declarations by name.
        optional: whether the message may omit declared tensors.
    """
    odd = sorted(tensors.keys() - wanted.keys() if optional else tensors.keys() ^ wanted.keys())
    if odd:
        return f"tensor '{short(odd[0])}' is {'missing' if odd[0] in wanted else 'not expected in this message'}"
    for name, value in tensors.items():
        reason = _misfit(value, wanted[name])
        if reason is not None:
            return f"tensor '{name}' {reason}"
    odd_one = first_not_finite(tensors)
    if odd_one is not None:
        return f"tensor '{odd_one}' contains NaN or infinite values"
    for name, value in tensors.items():
        bound = wanted[name].bound
        if bound < math.inf and value.numel() and float(value.double().abs().max()) > bound:
            return f"tensor '{name}' contains values with magnitude above {bound:g}, the maximum"
    return None


def short(value: object) -> str:
    """Returns an untrusted value as one short line."""
    try:
        return printable(str(value))
    except ValueError:  # Python does not print integers of several thousand digits
        return "a number with several thousand digits"


def _misfit(value: Tensor, wanted: DeclaredTensor) -> str | None:
    shape, free = tuple(value.shape), wanted.shape[:1] == (None,)
    fits = len(shape) == len(wanted.shape) and shape[free:] == wanted.shape[free:]
    if not fits:
        return f"has shape {short(shape)}, expected {str(wanted.shape).replace('None', 'any')}"
    if free and shape[0] > wanted.most_rows:
        return f"has {shape[0]} rows, the maximum is {wanted.most_rows}"
    if value.dtype != wanted.dtype:
        return f"has dtype {value.dtype}, expected {wanted.dtype}"
    if value.layout != torch.strided or value.is_meta:
        return "is not a dense tensor"
    return None
