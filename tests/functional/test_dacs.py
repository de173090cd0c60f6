"""DACS's transformation and losses compared with numpy in float64, gradients with finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fedreid_pl.functional.dacs import authenticity_loss, mean_entropy, style_distance, transform


def made() -> tuple[Tensor, Tensor, Tensor]:
    draws = torch.Generator().manual_seed(0)
    images = torch.randn(3, 3, 5, 4, generator=draws, dtype=torch.float64) * 2 + 1
    shift = torch.randn(3, 5, 4, generator=draws, dtype=torch.float64)
    return images, shift, torch.randn(3, 5, 4, generator=draws, dtype=torch.float64) + 1


def test_the_transformation_is_the_equation_pixel_by_pixel() -> None:
    images, shift, scale = made()
    found = transform(images, shift, scale).numpy()
    for image in range(3):
        for channel in range(3):
            x = images[image, channel].numpy()
            wanted = scale[channel].numpy() * (x - x.mean()) / (x.std() + 1e-8) + shift[channel].numpy()
            np.testing.assert_allclose(found[image, channel], wanted)
    flat = transform(torch.full((1, 3, 5, 4), 0.7), shift.float(), scale.float())
    torch.testing.assert_close(flat[0], shift.float(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("of", ["deviation", "variance"])
def test_the_distance_of_styles_is_a_mean_over_images_channels_and_positions(of: str) -> None:
    images, shift, scale = made()
    total = 0.0
    for image in range(3):
        for channel in range(3):
            x = images[image, channel].numpy()
            own, other = x.std(), scale[channel].numpy()
            if of == "variance":
                own, other = own**2, other**2
            total += ((x.mean() - shift[channel].numpy()) ** 2 + (own - other) ** 2).sum()
    assert float(style_distance(images, shift, scale, of)) == pytest.approx(total / (3 * 3 * 5 * 4))  # type: ignore[arg-type]


def entropy(logits: np.ndarray, least: float) -> float:
    total = 0.0
    for row in logits:
        p = np.exp(row - row.max())
        p /= p.sum()
        total -= sum(value * np.log(value) for value in p if value >= least and value > 0)
    return total / len(logits)


@pytest.mark.parametrize("least", [0.0, 1e-6, 0.2])
def test_losses_of_uncertainty_against_numpy(least: float) -> None:
    draws = torch.Generator().manual_seed(1)
    own, view, expert = (torch.randn(4, 6, generator=draws, dtype=torch.float64) * 3 for _ in range(3))
    first, second, third = (entropy(logits.numpy(), least) for logits in (own, view, expert))
    assert float(mean_entropy(view, least)) == pytest.approx(second)
    wanted = np.log1p(np.exp(first - second)) + np.log1p(np.exp(second - third))
    assert float(authenticity_loss(own, view, expert, least)) == pytest.approx(wanted)


def test_certain_logits_have_entropy_zero_and_finite_gradients() -> None:
    logits = torch.tensor([[500.0, -500.0, 0.0]], requires_grad=True)
    value = mean_entropy(logits)
    value.backward()
    assert float(value.detach()) == 0 and logits.grad is not None and logits.grad.isfinite().all()


@pytest.mark.parametrize("of", ["deviation", "variance"])
def test_gradients_against_finite_differences(of: str) -> None:
    images, shift, scale = made()
    shift.requires_grad_(), scale.requires_grad_()
    assert torch.autograd.gradcheck(lambda m, s: style_distance(images, m, s, of), (shift, scale))  # type: ignore[arg-type]
    assert torch.autograd.gradcheck(lambda m, s: transform(images, m, s), (shift, scale))
    draws = torch.Generator().manual_seed(1)
    logits = [torch.randn(3, 4, generator=draws, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(authenticity_loss, logits)


def test_the_loss_is_small_if_the_expert_is_least_certain_and_large_if_it_is_most_certain() -> None:
    sharp, soft, flat = torch.tensor([[9.0, 0, 0]]), torch.tensor([[1.0, 0, 0]]), torch.zeros(1, 3)
    assert authenticity_loss(sharp, soft, flat) < authenticity_loss(flat, soft, sharp)
