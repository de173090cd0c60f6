"""Batch augmentation has the same distributions as torchvision's transforms of single images.

Two samples are compared by distribution-free tests. Seeds are fixed, so the tests are deterministic; a wrong
distribution with this sample size has p-values far below the bound.
"""

from __future__ import annotations

import pytest
import torch
from scipy.stats import chi2_contingency, ks_2samp
from torch import Tensor
from torchvision.transforms import v2

from fedreid_pl.data.augmentation import crop_and_flip, erase

LEAST = 1e-3  # p-value


def one_by_one(transform: v2.Transform, image: Tensor, draws: int) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch.stack([transform(image) for _ in range(draws)])


def at_once(image: Tensor, draws: int) -> tuple[Tensor, torch.Generator]:
    return image.expand(draws, *image.shape), torch.Generator().manual_seed(1)


@pytest.mark.parametrize("flip", [0.5, 0.2])
def test_crops_and_mirrors_are_distributed_as_torchvision_s(flip: float) -> None:
    """Counts all 50 outcomes (position, mirrored) of a 7 x 5 image with a border of 2."""
    height, width, pad, draws = 7, 5, 2, 4000
    image = torch.arange(1, height * width + 1).view(1, height, width).expand(3, -1, -1).to(torch.uint8)
    transform = v2.Compose([v2.Pad(pad), v2.RandomCrop((height, width)), v2.RandomHorizontalFlip(flip)])
    images, generator = at_once(image, draws)
    theirs, ours = one_by_one(transform, image, draws), crop_and_flip(images, pad, flip, generator)
    outcomes, which = torch.cat([theirs, ours]).flatten(1).unique(dim=0, return_inverse=True)
    assert len(outcomes) == 2 * (2 * pad + 1) ** 2
    counts = torch.stack([torch.bincount(part, minlength=len(outcomes)) for part in which.split(draws)])
    assert chi2_contingency(counts.numpy()).pvalue > LEAST


@pytest.mark.parametrize(("height", "width"), [(64, 32), (24, 24), (16, 48)])
def test_erased_rectangles_are_distributed_as_torchvision_s(height: int, width: int) -> None:
    """Compares position and size on tall, square and wide images, on which not every rectangle fits."""
    draws = 1500
    image = torch.ones(3, height, width)
    transform = v2.RandomErasing(0.7, scale=(0.02, 0.4), ratio=(0.3, 3.3), value=0)
    images, generator = at_once(image, draws)
    theirs, ours = (boxes(each) for each in (one_by_one(transform, image, draws), erase(images, 0.7, generator)))
    hits = torch.tensor([[len(each), draws - len(each)] for each in (theirs, ours)])
    assert chi2_contingency(hits.numpy()).pvalue > LEAST
    for name, left, right in zip(("top", "left", "height", "width", "area"), theirs.T, ours.T, strict=True):
        assert ks_2samp(left.numpy(), right.numpy()).pvalue > LEAST, name
    assert ks_2samp(theirs[:, 2] / theirs[:, 3], ours[:, 2] / ours[:, 3]).pvalue > LEAST  # the aspect ratio


def boxes(images: Tensor) -> Tensor:
    """Returns `[erased images, 5]`: first row, first column, height, width and area of the zeros."""
    gone = images[:, 0] == 0
    gone = gone[gone.flatten(1).any(1)]
    rows, columns = gone.any(2), gone.any(1)
    sides = [rows.int().argmax(1), columns.int().argmax(1), rows.sum(1), columns.sum(1), gone.flatten(1).sum(1)]
    return torch.stack(sides, 1).double()
