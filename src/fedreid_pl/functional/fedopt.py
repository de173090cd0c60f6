"""Steps of server optimizers (FedAvgM, FedAdagrad, FedAdam, FedYogi) on the pseudo-gradient `w^t - mean_k w_k`."""

from __future__ import annotations

import torch
from torch import Tensor


def momentum_step(weight: Tensor, gradient: Tensor, first: Tensor, lr: float, beta1: float) -> tuple[Tensor, Tensor]:
    """Returns weight and momentum after a step of FedAvgM: `m = beta1 m + g`, `w = w - lr m`.

    Hsu et al., 2019; equal to `torch.optim.SGD` without dampening. The step is computed in float64 and rounded once:
    with `lr=1` and `beta1=0` the result is exactly `w - g` in the dtype of the weight.

    Args:
        weight: w, any shape and floating dtype.
        gradient: g, of the shape of `weight`; in float64 the difference of two models is exact.
        first: m, of the shape of `weight`, zeros at the start; float32, or float64 for a float64 weight.

    Returns:
        New weight and m, of the shapes and dtypes of `weight` and `first`; the arguments are not changed.

    >>> momentum_step(torch.tensor([1.0]), torch.tensor([0.5]), torch.tensor([2.0]), lr=0.1, beta1=0.5)
    (tensor([0.8500]), tensor([1.5000]))
    """
    moment = beta1 * first.double() + gradient.double()
    return _round(weight.double() - lr * moment, weight.dtype), _round(moment, first.dtype)


def adaptive_step(
    weight: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    optimizer: str,
    lr: float,
    beta1: float,
    beta2: float,
    tau: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns weight and both moments after a step of FedAdagrad, FedAdam or FedYogi.

    Reddi et al., "Adaptive Federated Optimization", ICLR 2021, Algorithm 2: `m = beta1 m + (1 - beta1) g` and
    `w = w - lr m / (sqrt(v) + tau)` with

    - adagrad: `v = v + g^2`
    - adam: `v = beta2 v + (1 - beta2) g^2`
    - yogi: `v = v - (1 - beta2) g^2 sign(v - g^2)`

    As in the paper there is no bias correction: `v` starts at `tau^2` instead of zero. The paper writes the
    pseudo-gradient as `mean_k w_k - w^t` and adds the step, which is the same. The step is computed in float64 and
    rounded once. A value that is too large for its dtype becomes the largest number of the dtype, so that no moment is
    infinite.

    Args:
        weight: w, any shape and floating dtype.
        gradient: g, of the shape of `weight`.
        first, second: m and v, of the shape of `weight`, float32, or float64 for a float64 weight; zeros and `tau^2`
            at the start.
        optimizer: `"adagrad"`, `"adam"` or `"yogi"`.

    Returns:
        New weight, m and v, of the shapes and dtypes of the arguments, which are not changed.

    Raises:
        ValueError: for another optimizer.

    >>> start = torch.tensor([1.0]), torch.tensor([0.5]), torch.tensor([0.0]), torch.tensor([0.0])
    >>> adaptive_step(*start, "adagrad", lr=1.0, beta1=0.0, beta2=0.0, tau=0.5)
    (tensor([0.5000]), tensor([0.5000]), tensor([0.2500]))
    """
    g, v = gradient.double(), second.double()
    square = g.square()
    if optimizer == "adagrad":
        v = v + square
    elif optimizer == "adam":
        v = beta2 * v + (1 - beta2) * square
    elif optimizer == "yogi":
        v = v - (1 - beta2) * square * torch.sign(v - square)
    else:
        raise ValueError(f"optimizer must be adagrad, adam or yogi, got '{optimizer}'")
    m = beta1 * first.double() + (1 - beta1) * g
    stepped = weight.double() - lr * m / (v.sqrt() + tau)
    return _round(stepped, weight.dtype), _round(m, first.dtype), _round(v, second.dtype)


def _round(value: Tensor, dtype: torch.dtype) -> Tensor:
    largest = torch.finfo(dtype).max
    return value.clamp(-largest, largest).to(dtype)
