"""Styles of cameras: mean and variance of channels over a camera's images, and images in the style of another camera.

Zhang et al., "CO-EVO", ACL 2026 (arXiv 2604.26363), global style diversification.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fedreid_pl.functional.mixstyle import instance_statistics

WIDTH = 6
"""Number of values of a style: means of red, green and blue in 0..1, then their variances in 0..0.25."""

MOST_VARIANCE = 0.25
"""Largest possible variance of numbers in 0..1."""


def image_moments(images: Tensor) -> Tensor:
    """Returns mean and mean square of each image's channels, in units of full brightness: `[B, 6]` float64 in 0..1.

    Args:
        images: `[B, 3, H, W]` uint8.

    >>> image_moments(torch.tensor([0, 255], dtype=torch.uint8).expand(1, 3, 1, 2))
    tensor([[0.5000, 0.5000, 0.5000, 0.5000, 0.5000, 0.5000]], dtype=torch.float64)
    """
    values = images.double() / 255
    return torch.cat([values.mean(dim=(2, 3)), values.square().mean(dim=(2, 3))], dim=1)


def styles_of(
    moments: Tensor,
    groups: Tensor,
    least: int = 1,
    noise_multiplier: float = 0.0,
    normal: Callable[[Sequence[int]], Tensor] | None = None,
) -> Tensor:
    """Returns the style of every group of images: mean and variance of channels over all pixels of its images.

    With noise, `N(0, (z sqrt(6) / n)^2)` is added to each of a group's six mean moments. One of the n images changes
    the vector of six means by at most `sqrt(6) / n` in L2 norm (each is a mean of n numbers in 0..1). So z is the noise
    in units of the largest change by one image. Variances are computed from the noised moments. Means and variances are
    clipped to their ranges.

    Args:
        moments: result of `image_moments`, `[N, 6]`.
        groups: `[N]` int64, the group of every image, such as its camera.
        least: groups of fewer images are left out.
        noise_multiplier: z; 0 adds no noise.
        normal: returns standard normal float64 numbers of a given shape.

    Returns:
        `[G, 6]` float32, in ascending order of the groups' numbers.

    >>> moments = torch.tensor([[0.0] * 6, [1.0] * 6, [0.5] * 3 + [0.25] * 3])
    >>> styles_of(moments, torch.tensor([7, 7, 3]), least=2)
    tensor([[0.5000, 0.5000, 0.5000, 0.2500, 0.2500, 0.2500]])
    """
    found = []
    for group in groups.unique(sorted=True):
        own = moments[groups == group].double()
        if len(own) < least:
            continue
        mean = own.mean(0)
        if noise_multiplier:
            assert normal is not None
            mean = mean + noise_multiplier * math.sqrt(WIDTH) / len(own) * normal((WIDTH,))
        first, second = mean.clamp(0, 1).chunk(2)
        found.append(torch.cat([first, (second - first.square()).clamp(0, MOST_VARIANCE)]))
    return torch.stack(found).float() if found else torch.zeros(0, WIDTH)


def restyle(images: Tensor, means: Tensor, deviations: Tensor, eps: float = 1e-5) -> Tensor:
    """Returns images in other styles: `(x - mu(x)) / sqrt(var(x) + eps) * sigma_s + mu_s`.

    Args:
        images: x, `[B, 3, H, W]` float, in any unit.
        means, deviations: mu_s and sigma_s, `[B, 3]` in the same unit.
        eps: added to the variance of each image.

    >>> restyle(torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([[10.0]]), torch.tensor([[2.0]]), eps=0.0).flatten()
    tensor([ 8., 12.])
    """
    mean, deviation = instance_statistics(images, eps)
    scale = deviations.to(deviation)[:, :, None, None] / deviation
    return torch.addcmul(means.to(mean)[:, :, None, None], images - mean, scale).to(images.dtype)


def k_means(points: Tensor, clusters: int, generator: torch.Generator, passes: int = 50) -> Tensor:
    """Returns the cluster of every point, `[N]` int64: Lloyd's algorithm from k-means++ seeds.

    Arthur and Vassilvitskii, "k-means++: The Advantages of Careful Seeding" (SODA 2007). The same points and the same
    generator give the same clusters.

    Args:
        points: `[N, D]` float, at least one.
        clusters: largest number of clusters; the result has fewer if points coincide.
        generator: CPU generator of the seeds.
        passes: largest number of iterations.

    >>> k_means(torch.tensor([[0.0], [9.0], [0.1]]), 2, torch.Generator().manual_seed(0)).unique(return_counts=True)[1]
    tensor([2, 1])
    """
    points = points.double()
    centres = points[torch.randint(len(points), (1,), generator=generator)]
    while len(centres) < clusters:
        far = torch.cdist(points, centres).amin(1).square()
        if not far.any():
            break
        centres = torch.cat([centres, points[torch.multinomial(far, 1, generator=generator)]])
    nearest = torch.cdist(points, centres).argmin(1)
    for _ in range(passes):
        members = [nearest == number for number in range(len(centres))]
        means = [points[own].mean(0) if own.any() else old for own, old in zip(members, centres, strict=True)]
        centres = torch.stack(means)
        before, nearest = nearest, torch.cdist(points, centres).argmin(1)
        if torch.equal(before, nearest):
            break
    return nearest


def gaussian_release_epsilon(noise_multiplier: float, delta: float) -> float:
    """Returns the epsilon of one release with Gaussian noise of `noise_multiplier` times its L2 sensitivity.

    The result is the smallest epsilon with `Phi(1 / 2z - epsilon z) - exp(epsilon) Phi(-1 / 2z - epsilon z) <= delta`,
    rounded up (Balle and Wang, "Improving the Gaussian Mechanism for Differential Privacy", ICML 2018, Theorem 8). It
    is infinite without noise.

    >>> round(gaussian_release_epsilon(1.0, 1e-5), 3)
    4.377
    """
    if not noise_multiplier:
        return math.inf
    low, high = 0.0, 1.0
    while _delta(noise_multiplier, high) > delta:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _delta(noise_multiplier, middle) > delta else (low, middle)
    return high


def _delta(z: float, epsilon: float) -> float:
    second = -1 / (2 * z) - epsilon * z
    tail = math.exp(epsilon + _log_below(second)) if epsilon + _log_below(second) < 0 else 1.0
    return _below(1 / (2 * z) - epsilon * z) - tail


def _below(x: float) -> float:
    """Returns the standard normal distribution function."""
    return 0.5 * math.erfc(-x / math.sqrt(2))


def _log_below(x: float) -> float:
    """Returns the logarithm of the normal distribution function; below x = -30 a lower bound by its leading terms."""
    if x > -30:
        return math.log(_below(x))
    return -0.5 * x * x - math.log(-x * math.sqrt(2 * math.pi)) + math.log1p(-1 / x**2)
