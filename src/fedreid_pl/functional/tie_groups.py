"""Expectations of retrieval measures over a random order of equal scores, computed exactly.

A query's matches form groups that share a score. Before a group there are `above` gallery images. The group has `size`
images in any order, and `matches` of them are matches. Every measure is a sum over groups, and so is its expectation.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class TieGroups(NamedTuple):
    """Groups of equal scores with at least one match, best first, `[q, p]` int64 each. `matches` 0 marks padding.

    Attributes:
        above: gallery images before the group.
        size: images in the group.
        matches: matches in the group.
    """

    above: Tensor
    size: Tensor
    matches: Tensor


def hit_rates(above: Tensor, size: Tensor, matches: Tensor, most: int) -> Tensor:
    """Returns the probability that the first match has rank 1, ..., `most` or better, `[Q, most]` float64.

    Args:
        above, size, matches: `[Q]`, the first group of every query; `matches` is 0 for a query without a match.
        most: the last rank.

    >>> hit_rates(torch.tensor([1]), torch.tensor([2]), torch.tensor([1]), 3).tolist()  # one of two, behind one
    [[0.0, 0.5, 1.0]]
    """
    place = torch.arange(most, device=above.device) - above[:, None]  # position in the group, from 0
    others = (size - matches)[:, None]
    missed = ((others - place).clamp_(min=0).double() / (size[:, None] - place).clamp_(min=1)).where(place >= 0, 1.0)
    return (1 - missed.cumprod(1)).where((matches > 0)[:, None], 0.0)


def average_precision(groups: TieGroups) -> tuple[Tensor, Tensor]:
    """Returns the expected average precision of every query, and the same by the trapezoidal rule, `[q]` float64.

    Given a match at place i of a group of E images with M matches, the expected number of matches before it in the
    group is (M - 1) / (E - 1) * (i - 1).
    """
    above, size, matches = (column.double() for column in groups)
    hits = matches.cumsum(1) - matches
    total = matches.sum(1)
    slope = (matches - 1) / (size - 1).clamp(min=1)
    here = _harmonic(groups.above, groups.size)
    before = _harmonic((groups.above - 1).clamp(min=0), groups.size - (groups.above == 0).long())
    precision = (hits + 1) * here + slope * (size - (above + 1) * here)
    at_top = 1 + slope * (size - 1)  # the precision before the first image of the list counts as 1
    just_before = (hits * before + slope * (size - above * before)).where(above > 0, at_top)
    alone = groups.size == 1
    precision = ((hits + 1) / (above + 1)).where(alone, precision)
    just_before = torch.where(groups.above == 0, 1.0, hits / above).where(alone, just_before)
    used = groups.matches > 0
    # A running sum adds in order, so that padding cannot change the last bit of a value.
    sums = [
        ((matches / size.clamp(min=1)) * values).where(used, 0.0).cumsum(1)[:, -1] / total
        for values in (precision, (precision + just_before) / 2)
    ]
    return sums[0], sums[1]


def inverse_penalty(groups: TieGroups) -> Tensor:
    """Returns the expectation of the number of matches divided by the rank of the last match, `[q]` float64."""
    total = groups.matches.sum(1)
    last = ((groups.matches > 0).sum(1) - 1)[:, None]
    above, size, matches = (column.gather(1, last).squeeze(1) for column in groups)
    result = total / (above + size).double()
    tied = (size > matches).nonzero().squeeze(1)
    if len(tied):
        result[tied] = _expected_penalty(above[tied], size[tied], matches[tied], total[tied])
    return result


def _expected_penalty(above: Tensor, size: Tensor, matches: Tensor, total: Tensor) -> Tensor:
    """Returns `inverse_penalty` of queries whose last group also has images of other persons.

    The last of M matches in E places is at place E with probability M / E, and at place l - 1 with (l - M) / (l - 1)
    times the probability of place l.
    """
    down = torch.arange(int(size.max()), device=size.device)  # places counted from the end
    place = size[:, None] - down  # E, E - 1, ...
    ratio = ((place + 1 - matches[:, None]).clamp(min=0).double() / place.clamp(min=1)).where(place >= 1, 0.0)
    ratio[:, 0] = matches.double() / size
    chance = ratio.cumprod(1)
    return total * (chance / (above[:, None] + place).clamp(min=1)).sum(1)


def _harmonic(start: Tensor, count: Tensor) -> Tensor:
    """Returns 1 / (start + 1) + ... + 1 / (start + count), float64; exact for `count` 1."""
    most = int((start + count).max()) + 1
    sums = torch.zeros(most, dtype=torch.float64, device=start.device)
    sums[1:] = (1.0 / torch.arange(1, most, dtype=torch.float64, device=start.device)).cumsum(0)
    several = sums[(start + count).clamp(min=0)] - sums[start]
    return (1.0 / (start + 1).double()).where(count == 1, several)
