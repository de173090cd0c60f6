"""Styles of cameras compared with numpy, K-means, and the sensitivity of a release to one image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from fedreid_pl.data.augmentation import MEAN, STD
from fedreid_pl.functional.mixstyle import instance_statistics
from fedreid_pl.functional.style_bank import (
    gaussian_release_epsilon,
    image_moments,
    k_means,
    restyle,
    styles_of,
)


def pictures(count: int = 9, seed: int = 0) -> Tensor:
    draws = torch.Generator().manual_seed(seed)
    top = torch.randint(60, 256, (count, 3, 1, 1), generator=draws)
    return (torch.rand(count, 3, 7, 5, generator=draws) * top).to(torch.uint8)


def test_a_style_is_mean_and_variance_over_all_pixels_of_a_camera() -> None:
    images, cameras = pictures(), torch.tensor([4, 4, 1, 1, 1, 4, 9, 4, 1])
    found = styles_of(image_moments(images), cameras, least=2)
    assert found.dtype == torch.float32 and found.shape == (2, 6), "camera 9 has one image"
    for row, camera in zip(found.numpy(), (1, 4), strict=True):
        pixels = images.numpy()[cameras.numpy() == camera].astype(np.float64) / 255
        wanted = [*pixels.mean(axis=(0, 2, 3)), *pixels.var(axis=(0, 2, 3))]
        np.testing.assert_allclose(row, wanted, rtol=1e-6)


def test_no_group_is_large_enough() -> None:
    assert styles_of(image_moments(pictures(3)), torch.arange(3), least=2).shape == (0, 6)


def test_one_image_changes_the_moments_by_at_most_the_sensitivity() -> None:
    """Tests the largest change, from black to white, and random pairs."""
    images = pictures(5)
    black, white = images.clone(), images.clone()
    black[0], white[0] = 0, 255
    moved = image_moments(black).mean(0) - image_moments(white).mean(0)
    assert float(moved.norm()) == pytest.approx(math.sqrt(6) / 5)
    for seed in range(50):
        other = images.clone()
        other[0] = pictures(1, seed)[0]
        moved = image_moments(images).mean(0) - image_moments(other).mean(0)
        assert float(moved.norm()) <= math.sqrt(6) / 5


def test_the_noise_is_in_units_of_the_sensitivity_and_results_stay_in_range() -> None:
    moments = image_moments(pictures(12))
    asked: list[tuple[int, ...]] = []

    def normal(shape: tuple[int, ...]) -> Tensor:
        asked.append(tuple(shape))
        return torch.tensor([1.0, -1.0, 0.5, 0.0, 2.0, -0.5], dtype=torch.float64)

    found = styles_of(moments, torch.zeros(12), 1, 0.1, normal)[0].double()
    mean = moments.mean(0) + 0.1 * math.sqrt(6) / 12 * normal((6,))
    torch.testing.assert_close(found, torch.cat([mean[:3], mean[3:] - mean[:3] ** 2]), rtol=1e-6, atol=1e-7)
    assert asked[0] == (6,)
    wild = styles_of(moments, torch.zeros(12), 1, 1000.0, normal)[0]
    assert wild.min() >= 0 and wild[:3].max() <= 1 and wild[3:].max() <= 0.25


@pytest.mark.parametrize(("z", "delta"), [(0.3, 1e-5), (1.0, 1e-5), (1.0, 0.1), (5.0, 1e-7), (0.05, 1e-6)])
def test_epsilon_is_the_exact_value_of_the_gaussian_mechanism(z: float, delta: float) -> None:
    """delta(epsilon) is the integral of max(0, p - e^epsilon q) over both densities."""

    def integral(epsilon: float) -> float:
        grid = np.linspace(-0.5 - 12 * z, 1.5 + 12 * z, 400_001)
        p, q = stats.norm.logpdf(grid, 1.0, z), stats.norm.logpdf(grid, 0.0, z)
        return float(np.trapezoid(np.maximum(np.exp(p) - np.exp(np.minimum(epsilon + q, p)), 0), grid))

    epsilon = gaussian_release_epsilon(z, delta)
    assert integral(epsilon * 1.001) < delta < integral(epsilon * 0.999)


def test_without_noise_there_is_no_privacy_guarantee() -> None:
    assert gaussian_release_epsilon(0.0, 1e-5) == math.inf


def test_a_restyled_image_has_the_style_and_keeps_its_content() -> None:
    draws = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 6, 5, generator=draws, dtype=torch.float64)
    means, deviations = torch.randn(4, 3, generator=draws), torch.rand(4, 3, generator=draws) + 0.1
    found = restyle(images, means, deviations, eps=0.0)
    mean, deviation = instance_statistics(found, 0.0)
    torch.testing.assert_close(mean[:, :, 0, 0], means.double())
    torch.testing.assert_close(deviation[:, :, 0, 0], deviations.double())
    assert torch.equal(found.flatten(2).argsort(2), images.flatten(2).argsort(2))
    flat = torch.full((1, 3, 4, 4), 0.3)
    torch.testing.assert_close(restyle(flat, means[:1], deviations[:1]), means[:1, :, None, None].expand(1, 3, 4, 4))


def test_an_image_in_its_own_style_equals_the_normalised_image() -> None:
    """Converts from 0..1 to normalised units: (mu - MEAN) / STD and sqrt(var) / STD."""
    image = pictures(1)
    style = styles_of(image_moments(image), torch.zeros(1))[0]
    mean, deviation = torch.tensor(MEAN), torch.tensor(STD)
    normalised = (image.float() / 255 - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)
    again = restyle(normalised, ((style[:3] - mean) / deviation)[None], (style[3:].sqrt() / deviation)[None], eps=0.0)
    torch.testing.assert_close(again, normalised, rtol=1e-4, atol=1e-5)


def test_k_means_finds_separate_groups_and_at_most_one_per_point() -> None:
    draws = torch.Generator().manual_seed(0)
    truth = torch.arange(60) % 3
    points = torch.randn(60, 2, generator=draws) * 0.1 + torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])[truth]
    found = k_means(points, 3, torch.Generator().manual_seed(1))
    assert len({(int(a), int(b)) for a, b in zip(found, truth, strict=True)}) == 3
    assert torch.equal(found, k_means(points, 3, torch.Generator().manual_seed(1)))
    assert k_means(torch.zeros(4, 2), 3, draws).tolist() == [0, 0, 0, 0]
    for seed in range(20):  # no point is nearer to another group's mean
        some = torch.randn(30, 2, generator=draws)
        own = k_means(some, 4, torch.Generator().manual_seed(seed))
        means = torch.stack([some[own == number].mean(0) for number in own.unique()])
        assert torch.equal(own.unique()[torch.cdist(some, means).argmin(1)], own)
