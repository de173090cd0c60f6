"""The proximal gradient against autograd of the penalty."""

from __future__ import annotations

import pytest
import torch

from fedreid_pl.functional.fedprox import proximal_gradient


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mu", [0.0, 0.01, 3.0])
def test_equals_autograd_of_the_penalty(mu: float, dtype: torch.dtype) -> None:
    draws = torch.Generator().manual_seed(1)
    weight = torch.randn(4, 3, 2, generator=draws, dtype=dtype).requires_grad_()
    start = torch.randn(4, 3, 2, generator=draws, dtype=dtype)
    before = weight.detach().clone(), start.clone()
    (wanted,) = torch.autograd.grad(mu / 2 * (weight - start).square().sum(), weight)
    found = proximal_gradient(weight, start, mu)
    assert found.dtype == dtype and not found.requires_grad
    torch.testing.assert_close(found, wanted)
    assert torch.equal(weight, before[0]) and torch.equal(start, before[1]), "nothing is changed"


def test_it_vanishes_at_the_start_exactly_and_points_back() -> None:
    start = torch.tensor([0.1, 1e-30, 3e30])
    assert not proximal_gradient(start.clone(), start, 0.3).any()
    assert proximal_gradient(torch.tensor([2.0]), torch.tensor([6.0]), 0.5).item() == -2.0


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="two equal shapes"):
        proximal_gradient(torch.ones(2, 3), torch.ones(3), 1.0)
