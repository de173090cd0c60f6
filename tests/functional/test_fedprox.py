"""The proximal term compared with autograd, tensor by tensor."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fedreid_pl.functional.fedprox import proximal_term


def draw(seed: int, dtype: torch.dtype) -> list[Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=draws, dtype=dtype) for shape in ((4, 3, 2), (5,), ())]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mu", [0.0, 0.01, 3.0])
def test_equals_autograd_of_the_penalty(mu: float, dtype: torch.dtype) -> None:
    weights, start = [value.requires_grad_() for value in draw(1, dtype)], draw(2, dtype)
    before = [value.detach().clone() for value in (*weights, *start)]
    plain = mu / 2 * torch.stack([(new - old).square().sum() for new, old in zip(weights, start, strict=True)]).sum()
    found = proximal_term(weights, start, mu)
    torch.testing.assert_close(found, plain)
    assert found.dtype == dtype and found.shape == ()
    for one, other in zip(
        torch.autograd.grad(0.3 * found, weights), torch.autograd.grad(0.3 * plain, weights), strict=True
    ):
        torch.testing.assert_close(one, other)
    assert all(torch.equal(*pair) for pair in zip((*weights, *start), before, strict=True)), "the inputs do not change"


def test_the_gradient_is_zero_at_the_start_and_points_back_elsewhere() -> None:
    start = torch.tensor([0.1, 1e-30, 3e30])
    weight = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(proximal_term([weight], [start], 0.3), weight)
    assert not gradient.any()
    far = torch.tensor([2.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(proximal_term([far], [torch.tensor([6.0])], 0.5), far)
    assert gradient.item() == -2.0


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="equal shapes"):
        proximal_term([torch.ones(2, 3)], [torch.ones(3)], 1.0)
    with pytest.raises(ValueError, match="equal shapes"):
        proximal_term([], [], 1.0)
