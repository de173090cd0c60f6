"""Tensors of a message against what they have to look like: the same check at the server and at a client."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from fedreid_pl.errors import printable
from fedreid_pl.federation.messages import DeclaredTensor
from fedreid_pl.functional.finite import first_not_finite


def declared_like(state: Mapping[str, Tensor]) -> dict[str, DeclaredTensor]:
    """Declarations of tensors with the names, shapes and dtypes of these."""
    return {name: DeclaredTensor(name, tuple(value.shape), value.dtype) for name, value in state.items()}


def misfit(tensors: Mapping[str, Tensor], wanted: Mapping[str, DeclaredTensor], optional: bool = False) -> str | None:
    """Says what is wrong with a message's tensors, `None` if nothing is.

    Args:
        tensors: of the message, by name.
        wanted: what they have to look like, by name.
        optional: some of those that are wanted may be missing.
    """
    odd = sorted(tensors.keys() - wanted.keys() if optional else tensors.keys() ^ wanted.keys())
    if odd:
        return f"tensors differ from those {'declared' if optional else 'sent'}, e.g. '{short(odd[0])}'"
    for name, value in tensors.items():
        reason = _misfit(value, wanted[name])
        if reason is not None:
            return f"'{name}' {reason}"
    odd_one = first_not_finite(tensors)
    if odd_one is not None:
        return f"'{odd_one}' holds NaN or infinite values"
    for name, value in tensors.items():
        bound = wanted[name].bound
        if bound < math.inf and value.numel() and float(value.double().abs().max()) > bound:
            return f"'{name}' holds values beyond {bound:g}"
    return None


def short(value: object) -> str:
    """A value as one short line, whoever sent it."""
    try:
        return printable(str(value))
    except ValueError:  # an integer of more digits than Python writes out
        return "a number beyond all bounds"


def _misfit(value: Tensor, wanted: DeclaredTensor) -> str | None:
    shape, free = tuple(value.shape), wanted.shape[:1] == (None,)
    fits = len(shape) == len(wanted.shape) and shape[free:] == wanted.shape[free:]
    if not fits:
        return f"has shape {short(shape)}, not {str(wanted.shape).replace('None', 'any')}"
    if free and shape[0] > wanted.most_rows:
        return f"has {shape[0]} rows, more than {wanted.most_rows}"
    if value.dtype != wanted.dtype:
        return f"is {value.dtype}, not {wanted.dtype}"
    if value.layout != torch.strided or value.is_meta:
        return "is not a dense tensor"
    return None
