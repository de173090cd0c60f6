"""The arithmetic of ensemble distillation at the server: the teachers' mean feature and the student's loss."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F


def mean_feature(teachers: Iterable[Tensor], normalize: bool = False) -> Tensor:
    """Returns `l(x) = 1/N sum_k l_k(x)`, the unweighted target of the student (TOMM 2023, Algorithm 3).

    The function adds one teacher at a time to a running sum. The sum is in float64 on the CPU: the mean of equal
    float32 features is exactly that feature, and the order of the teachers does not change the result.

    Args:
        teachers: features `[B, D]` of the same images, one tensor per teacher.
        normalize: L2-normalise every teacher's features before the mean. The mean itself is not normalised.

    Returns:
        `[B, D]` on the CPU, with the dtype of the teachers.

    Raises:
        ValueError: if there is no teacher, or the shapes differ.

    >>> mean_feature([torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0]])])
    tensor([[1.5000, 3.0000]])
    >>> mean_feature([torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0]])], normalize=True)
    tensor([[0.3000, 0.9000]])
    """
    total: Tensor | None = None
    dtype, count = torch.float32, 0
    for features in teachers:
        dtype, count = features.dtype, count + 1
        wide = features.detach().cpu().double()
        wide = F.normalize(wide, dim=1) if normalize else wide
        if total is not None and total.shape != wide.shape:
            raise ValueError(f"teachers of different shapes: {tuple(total.shape)} and {tuple(wide.shape)}")
        total = wide if total is None else total + wide
    if total is None:
        raise ValueError("no teacher to learn from")
    return (total / count).to(dtype)


def distillation_loss(student: Tensor, target: Tensor, normalize: bool = False) -> Tensor:
    """Returns the mean squared error between the student's features and the teachers' mean, a scalar.

    The mean is over all `B * D` numbers. Only the student gets gradients.

    Args:
        student: features `[B, D]`.
        target: the teachers' mean, `[B, D]`, of the same dtype and device.
        normalize: L2-normalise the student's features first.

    Raises:
        ValueError: if the shapes differ or the batch is empty.

    >>> distillation_loss(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 4.0]]))
    tensor(2.)
    """
    if student.shape != target.shape or student.ndim != 2 or not student.numel():
        raise ValueError(f"expected two equal [B, D] tensors, got {tuple(student.shape)} and {tuple(target.shape)}")
    return F.mse_loss(F.normalize(student, dim=1) if normalize else student, target.detach())
