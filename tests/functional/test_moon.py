"""The model-contrastive loss compared with the paper's equation, a case by hand and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fedreid_pl.functional.moon import model_contrastive_loss


def draw(seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    first, second, third = (torch.randn(5, 3, generator=draws, dtype=torch.float64).to(dtype) for _ in range(3))
    return first, second, third


def written_out(z: Tensor, z_global: Tensor, z_previous: Tensor, temperature: float) -> float:
    """Computes equation 3 image by image with Python floats."""

    def similarity(one: list[float], other: list[float]) -> float:
        dot = sum(a * b for a, b in zip(one, other, strict=True))
        return dot / math.sqrt(sum(a * a for a in one)) / math.sqrt(sum(b * b for b in other))

    losses = []
    for own, towards, away in zip(z.tolist(), z_global.tolist(), z_previous.tolist(), strict=True):
        near = math.exp(similarity(own, towards) / temperature)
        far = math.exp(similarity(own, away) / temperature)
        losses.append(-math.log(near / (near + far)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_equals_the_fraction_of_exponentials(temperature: float) -> None:
    parts = draw(1)
    found = model_contrastive_loss(*parts, temperature)
    assert found.shape == () and float(found) == pytest.approx(written_out(*parts, temperature), rel=1e-12)


def test_a_case_by_hand() -> None:
    """Similarity 1 to the global model and -1 to the previous one: log(1 + exp(-2 / 0.5))."""
    z = torch.tensor([[3.0, 4.0]])
    assert float(model_contrastive_loss(z, 2 * z, -z)) == pytest.approx(math.log(1 + math.exp(-4)), rel=1e-5)
    assert float(model_contrastive_loss(z, -z, z)) == pytest.approx(math.log(1 + math.exp(4)), rel=1e-6)


def test_the_gradient_equals_finite_differences_and_only_z_has_one() -> None:
    z, towards, away = (value.requires_grad_() for value in draw(2))
    (gradient,) = torch.autograd.grad(model_contrastive_loss(z, towards, away), z)
    step = 1e-6
    for row in range(5):
        for column in range(3):
            ends = []
            for sign in (1, -1):
                moved = z.detach().clone()
                moved[row, column] += sign * step
                ends.append(written_out(moved, towards, away, 0.5))
            assert float(gradient[row, column]) == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-8)
    others = torch.autograd.grad(model_contrastive_loss(z, towards, away), (towards, away), allow_unused=True)
    assert others == (None, None)


def test_lengths_do_not_matter_and_equal_models_give_no_gradient() -> None:
    z, towards, away = draw(3)
    scaled = model_contrastive_loss(5 * z, 0.1 * towards, 30 * away)
    torch.testing.assert_close(scaled, model_contrastive_loss(z, towards, away))
    z.requires_grad_()
    (gradient,) = torch.autograd.grad(model_contrastive_loss(z, towards, towards), z)
    assert float(gradient.abs().max()) < 1e-15


def test_half_precision_is_computed_in_float32_and_extreme_temperatures_stay_finite() -> None:
    parts = draw(4, torch.bfloat16)
    found = model_contrastive_loss(*parts)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(written_out(*parts, 0.5), rel=1e-5)
    assert torch.isfinite(model_contrastive_loss(*draw(5, torch.float32), temperature=1e-4))


@pytest.mark.parametrize("shapes", [((5, 3), (5, 3), (4, 3)), ((5,), (5,), (5,))])
def test_other_shapes_are_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match="three equal shapes"):
        model_contrastive_loss(*(torch.ones(shape) for shape in shapes))
