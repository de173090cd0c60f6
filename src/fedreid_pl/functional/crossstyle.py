"""CrossNorm between images: an image, or a part of it, gets the style of a part of another image."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedreid_pl.functional.mixstyle import Gather, instance_statistics


class Box(NamedTuple):
    """Rows `top` to `bottom` and columns `left` to `right` of an image; `bottom` and `right` are not included."""

    top: int
    bottom: int
    left: int
    right: int


def draw_box(height: int, width: int, beta: float, least: float, draws: np.random.Generator) -> Box:
    """Returns a random box around a random pixel; its sides are those of the image times `sqrt(Beta(beta, beta))`.

    The box is cut at the border of the image. As in the code of Tang et al., ICCV 2021, a box of at most the share
    `least` of the image's area is drawn again.

    >>> draw_box(8, 4, 1.0, 0.1, np.random.default_rng(0))
    Box(top=0, bottom=5, left=0, right=1)
    """
    while True:
        side = float(np.sqrt(draws.beta(beta, beta)))
        tall, wide = int(height * side), int(width * side)
        row, column = int(draws.integers(height)), int(draws.integers(width))
        box = Box(
            max(row - tall // 2, 0),
            min(row + tall // 2, height),
            max(column - wide // 2, 0),
            min(column + wide // 2, width),
        )
        if (box.bottom - box.top) * (box.right - box.left) > least * height * width:
            return box


def whole_box(height: int, width: int) -> Box:
    """Returns the box of a whole image."""
    return Box(0, height, 0, width)


def cross_style(
    images: Tensor,
    partners: Tensor,
    content: Box,
    style: Box,
    eps: float = 1e-5,
    gather: Gather = lambda rows: rows,
) -> Tensor:
    """Returns images in which the content box has the channel statistics of the partner's style box (CrossNorm).

    Tang et al., "CrossNorm and SelfNorm for Generalization under Distribution Shifts", ICCV 2021, Eq. 1: with mean mu
    and deviation sigma of channels over a box, `sigma_B (A - mu_A) / sigma_A + mu_B`. Pixels outside of the content
    box do not change.

    Args:
        images: A, `[B, C, H, W]` float.
        partners: `[B]` int64, the partner of every image as a row of the whole batch.
        content, style: boxes, the same for all images. With boxes of whole images this is CrossNorm without crops.
        eps: added to variances.
        gather: returns the statistics `[total, C, 1, 1]` of the whole batch, given those of `images`. The default
            assumes that `images` is the whole batch.

    >>> images = torch.tensor([[[[1.0, 3.0]]], [[[10.0, 30.0]]]])
    >>> everything = whole_box(1, 2)
    >>> cross_style(images, torch.tensor([1, 0]), everything, everything, eps=0.0).flatten().tolist()
    [10.0, 30.0, 1.0, 3.0]
    """
    mean, deviation = (gather(part)[partners] for part in instance_statistics(_cut(images, style), eps))
    inside = _cut(images, content)
    own, spread = instance_statistics(inside, eps)
    changed = images.clone()
    _cut(changed, content).copy_(torch.addcmul(mean, inside - own, deviation / spread))
    return changed


def _cut(images: Tensor, box: Box) -> Tensor:
    return images[:, :, box.top : box.bottom, box.left : box.right]
