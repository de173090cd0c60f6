"""CrossNorm compared with loops in float64, and the random boxes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fedreid_pl.functional.crossstyle import Box, cross_style, draw_box, whole_box
from fedreid_pl.functional.mixstyle import instance_statistics

HEIGHT, WIDTH = 8, 5


def images(count: int = 4) -> Tensor:
    draws = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, HEIGHT, WIDTH, generator=draws, dtype=torch.float64) * 2 + 1


@pytest.mark.parametrize("content", [Box(0, 8, 0, 5), Box(2, 6, 1, 5)])
@pytest.mark.parametrize("style", [Box(0, 8, 0, 5), Box(1, 3, 0, 4)])
def test_it_equals_a_loop_over_images_and_channels(content: Box, style: Box) -> None:
    given, partners = images(), torch.tensor([2, 0, 3, 1])
    wanted = given.numpy().copy()
    for image, partner in enumerate(partners.tolist()):
        for channel in range(3):
            place = (image, channel, slice(*content[:2]), slice(*content[2:]))
            source = given.numpy()[partner, channel, slice(*style[:2]), slice(*style[2:])]
            own = given.numpy()[place]
            spread = np.sqrt(own.var() + 1e-5)
            wanted[place] = (own - own.mean()) / spread * np.sqrt(source.var() + 1e-5) + source.mean()
    torch.testing.assert_close(cross_style(given, partners, content, style), torch.from_numpy(wanted))
    assert torch.equal(given, images()), "the input does not change"


def test_swapping_styles_twice_without_boxes_restores_the_images() -> None:
    given, partners, all_of_it = images(), torch.tensor([1, 0, 3, 2]), whole_box(HEIGHT, WIDTH)
    there = cross_style(given, partners, all_of_it, all_of_it, eps=0.0)
    for mine, others in zip(instance_statistics(there, 0.0), instance_statistics(given, 0.0), strict=True):
        torch.testing.assert_close(mine, others[partners])
    torch.testing.assert_close(cross_style(there, partners, all_of_it, all_of_it, eps=0.0), given)
    alone = given[:1]
    torch.testing.assert_close(cross_style(alone, torch.zeros(1, dtype=torch.int64), all_of_it, all_of_it), alone)


def test_a_part_with_the_whole_batchs_statistics_is_processed_like_in_the_whole_batch() -> None:
    given, partners, content, style = images(), torch.tensor([2, 0, 3, 1]), Box(2, 6, 1, 5), Box(1, 3, 0, 4)
    own = [3, 1]
    statistics = iter(instance_statistics(given[:, :, 1:3, 0:4], 1e-5))
    part = cross_style(given[own], partners[own], content, style, gather=lambda rows: next(statistics))
    torch.testing.assert_close(part, cross_style(given, partners, content, style)[own])


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_boxes_lie_within_the_image_and_are_large_enough(beta: float) -> None:
    draws = np.random.default_rng(0)
    boxes = [draw_box(64, 32, beta, 0.1, draws) for _ in range(500)]
    areas = [(box.bottom - box.top) * (box.right - box.left) / (64 * 32) for box in boxes]
    assert min(areas) > 0.1 and max(areas) <= 1 and len(set(boxes)) > 400
    assert all(0 <= box.top < box.bottom <= 64 and 0 <= box.left < box.right <= 32 for box in boxes)
    assert draw_box(64, 32, beta, 0.1, np.random.default_rng(0)) == boxes[0]
