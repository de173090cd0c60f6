"""MixStyle compared with loops in float64, and invariances."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fedreid_pl.functional.mixstyle import instance_statistics, mix_style


def made(size: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    draws = torch.Generator().manual_seed(0)
    maps = torch.randn(size, 4, 3, 2, generator=draws, dtype=torch.float64) * 3 + 2
    return maps, torch.rand(size, generator=draws, dtype=torch.float64), torch.randperm(size, generator=draws)


def looped(maps: Tensor, factors: Tensor, partners: Tensor, eps: float) -> Tensor:
    """Computes the mixture number by number with Python floats."""
    result = maps.clone()
    images, channels, height, width = maps.shape

    def style(image: int, channel: int) -> tuple[float, float]:
        values = maps[image, channel].flatten().tolist()
        mean = math.fsum(values) / len(values)
        return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values) + eps)

    for image in range(images):
        share, partner = float(factors[image]), int(partners[image])
        for channel in range(channels):
            (mean, deviation), (other, spread) = style(image, channel), style(partner, channel)
            for row in range(height):
                for column in range(width):
                    normal = (float(maps[image, channel, row, column]) - mean) / deviation
                    mixed = share * deviation + (1 - share) * spread
                    result[image, channel, row, column] = normal * mixed + share * mean + (1 - share) * other
    return result


@pytest.mark.parametrize("eps", [1e-6, 0.5])
def test_it_equals_a_loop_over_single_numbers(eps: float) -> None:
    maps, factors, partners = made()
    torch.testing.assert_close(mix_style(maps, factors, partners, eps), looped(maps, factors, partners, eps))


def test_the_mixture_has_the_mixed_statistics_and_keeps_the_order_of_values() -> None:
    maps, factors, partners = made()
    mixed = mix_style(maps, factors, partners, eps=0.0)
    (mean, deviation), (new, spread) = instance_statistics(maps, 0.0), instance_statistics(mixed, 0.0)
    share = factors.view(-1, 1, 1, 1)
    torch.testing.assert_close(new, share * mean + (1 - share) * mean[partners])
    torch.testing.assert_close(spread, share * deviation + (1 - share) * deviation[partners])
    assert torch.equal(mixed.flatten(2).argsort(2), maps.flatten(2).argsort(2))


def test_a_share_of_one_or_the_same_image_as_partner_changes_no_value() -> None:
    maps, factors, partners = made()
    torch.testing.assert_close(mix_style(maps, torch.ones(5), partners), maps)
    torch.testing.assert_close(mix_style(maps, factors, torch.arange(5)), maps)
    alone = maps[:1]
    torch.testing.assert_close(mix_style(alone, factors[:1], torch.zeros(1, dtype=torch.int64)), alone)


def test_no_gradient_flows_through_the_statistics() -> None:
    maps, factors, partners = made()
    maps.requires_grad_()
    upstream = torch.randn(maps.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (mix_style(maps, factors, partners, eps=0.0) * upstream).sum().backward()
    deviation = instance_statistics(maps.detach(), 0.0)[1]
    share = factors.view(-1, 1, 1, 1)
    scale = (share * deviation + (1 - share) * deviation[partners]) / deviation
    torch.testing.assert_close(maps.grad, upstream * scale)


def test_a_part_with_the_whole_batchs_statistics_is_processed_like_in_the_whole_batch() -> None:
    maps, factors, partners = made()
    own = [3, 1]
    statistics = iter(instance_statistics(maps))
    part = mix_style(maps[own], factors[own], partners[own], gather=lambda rows: next(statistics))
    torch.testing.assert_close(part, mix_style(maps, factors, partners)[own])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_statistics_are_at_least_float32_and_maps_keep_their_type(dtype: torch.dtype) -> None:
    maps, factors, partners = made()
    assert instance_statistics(maps.to(dtype))[0].dtype == torch.float32
    mixed = mix_style(maps.to(dtype), factors, partners)
    assert mixed.dtype == dtype
    torch.testing.assert_close(mixed.double(), mix_style(maps, factors, partners), rtol=0.05, atol=0.1)
