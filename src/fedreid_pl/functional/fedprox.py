"""The gradient of FedProx's proximal term."""

from __future__ import annotations

from torch import Tensor


def proximal_gradient(weight: Tensor, start: Tensor, mu: float) -> Tensor:
    """`mu * (w - w^t)`, the gradient of `mu/2 * ||w - w^t||^2` (Li et al., MLSys 2020, Eq. 2).

    Args:
        weight: w, of any shape and floating-point dtype.
        start: w^t, of the same shape and dtype.
        mu: weight of the term.

    Raises:
        ValueError: if the shapes differ.

    >>> import torch
    >>> proximal_gradient(torch.tensor([3.0, 1.0]), torch.tensor([1.0, 1.0]), 0.5)
    tensor([1., 0.])
    """
    if weight.shape != start.shape:
        raise ValueError(f"two equal shapes wanted, got {tuple(weight.shape)} and {tuple(start.shape)}")
    return (weight.detach() - start).mul_(mu)
