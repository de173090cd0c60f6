"""FedProx's proximal term."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def proximal_term(weights: Sequence[Tensor], start: Sequence[Tensor], mu: float) -> Tensor:
    """Returns `mu/2 * ||w - w^t||^2` over all tensors, with the gradient `mu * (w - w^t)`.

    Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020, Eq. 2.

    Args:
        weights: w, at least one tensor, of any shapes and floating-point dtype.
        start: w^t, of the same shapes and dtypes; it gets no gradient.
        mu: weight of the term.

    Returns:
        A scalar of the dtype of the first weight.

    Raises:
        ValueError: if the shapes differ, or there is no tensor.

    >>> weight = torch.tensor([3.0, 1.0], requires_grad=True)
    >>> proximal_term([weight], [torch.tensor([1.0, 1.0])], mu=0.5)
    tensor(1., grad_fn=<_ProximalBackward>)
    """
    shapes, wanted = [value.shape for value in weights], [value.shape for value in start]
    if shapes != wanted or not shapes:
        raise ValueError(f"expected equal shapes, got {[*map(tuple, shapes)]} and {[*map(tuple, wanted)]}")
    return _Proximal.apply(mu, [value.detach() for value in start], *weights)  # type: ignore[no-any-return]


class _Proximal(torch.autograd.Function):
    """Computes the term for all tensors in one node of the graph; plain operations would add several per tensor."""

    @staticmethod
    def forward(ctx: Any, mu: float, start: Sequence[Tensor], *weights: Tensor) -> Tensor:
        ctx.mu = mu
        distances = [weight - old for weight, old in zip(weights, start, strict=True)]
        ctx.save_for_backward(*distances)
        squares = torch.stack([torch.linalg.vector_norm(distance) for distance in distances]).square()
        return squares.sum() * (mu / 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        factor = gradients[0] * ctx.mu
        return None, None, *(distance * factor for distance in ctx.saved_tensors)
