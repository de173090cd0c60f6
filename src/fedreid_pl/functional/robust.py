"""Robust aggregation: a few arbitrary updates have a bounded effect on the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

CHUNK = 2**16  # values of a tensor that are sorted at a time


def trimmed_mean(states: Sequence[Mapping[str, Tensor]], cut: int) -> dict[str, Tensor]:
    """Returns the mean of every coordinate without its `cut` smallest and largest values.

    Yin et al., ICML 2018, Def. 2. With `cut = (n - 1) // 2` the result is the coordinate-wise median (Def. 1); for an
    even number of states this is the mean of the two middle values. Values are sorted and summed in float64, 65,536 at
    a time, and rounded to their dtype once. The result does not depend on the order of the states, and float32's
    largest values do not overflow. The result of an integer tensor, such as a counter of BatchNorm, is the lower
    median: a value of one of the states that an outlier cannot set.

    Args:
        states: n state dicts with equal names, shapes and dtypes.
        cut: values left out at each end, `0 <= 2 cut < n`.

    Raises:
        ValueError: if nothing would be left.

    >>> trimmed_mean([{"w": torch.tensor(value)} for value in (1.0, 9e9, 2.0, -5.0)], cut=1)
    {'w': tensor(1.5000)}
    """
    if not 0 <= 2 * cut < len(states):
        raise ValueError(f"cut={cut} leaves no value: it must be at least 0 and below half of the {len(states)} states")
    return {name: _trim([state[name] for state in states], cut) for name in states[0]}


def _trim(values: Sequence[Tensor], cut: int) -> Tensor:
    result = torch.empty_like(values[0])
    if not result.is_floating_point():
        return result.copy_(torch.stack(list(values)).sort(dim=0).values[(len(values) - 1) // 2])
    parts = [value.reshape(-1).split(CHUNK) for value in values]
    means = []
    for chunk in zip(*parts, strict=True):
        ranked = torch.stack([part.double() for part in chunk]).sort(dim=0).values  # [n, CHUNK]
        means.append(ranked[cut : len(values) - cut].mean(0).to(result.dtype))
    return result.copy_(torch.cat(means).view(result.shape))


def number_cut(count: int, trim: float) -> int:
    """Returns `floor(trim * count)`, the number of values to cut at each end; at least one value always remains.

    >>> number_cut(10, 0.3), number_cut(4, 0.2), number_cut(2, 0.499)
    (3, 0, 0)
    """
    return min(int(trim * count + 1e-9), (count - 1) // 2)  # 0.29 * 100 is 28.999999999999996


def squared_distances(states: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """Returns squared Euclidean distances between state dicts over their floating-point tensors, `[n, n]` float64.

    The sum is accumulated in float64, one tensor and one pair at a time: the function needs the memory of two copies of
    a tensor, and float32's largest values do not overflow. Equal states have distance exactly zero.
    """
    result = torch.zeros(len(states), len(states), dtype=torch.float64)
    for name, value in states[0].items():
        if not value.is_floating_point():
            continue
        for i in range(len(states)):
            one = states[i][name].double().reshape(-1)
            for j in range(i):
                result[i, j] += (one - states[j][name].reshape(-1)).square_().sum().cpu()
    return result + result.T


def krum_scores(distances: Tensor, byzantine: int) -> list[float]:
    """Returns the Krum score of every update: the sum of squared distances to its `n - f - 2` nearest updates.

    Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017,
    Section 4. Lower is better.

    Args:
        distances: `[n, n]` squared distances.
        byzantine: f, the number of arbitrary updates to withstand.

    Raises:
        ValueError: unless `n >= 2 f + 3` and `f >= 0`.

    >>> points = [{"w": torch.tensor(value)} for value in (0.0, 1.0, 3.0, 100.0)]
    >>> krum_scores(squared_distances(points), byzantine=0)
    [10.0, 5.0, 13.0, 19210.0]
    """
    count = len(distances)
    if byzantine < 0 or count < 2 * byzantine + 3:
        raise ValueError(f"Krum needs n >= 2 f + 3 and f >= 0, got n={count} and f={byzantine}")
    others = [torch.cat([row[:i], row[i + 1 :]]).sort().values for i, row in enumerate(distances)]
    return [float(row[: count - byzantine - 2].sum()) for row in others]


def krum(states: Sequence[Mapping[str, Tensor]], byzantine: int, count: int = 1) -> list[int]:
    """Returns positions of the `count` states with the best Krum scores, best first; equal scores in their order.

    `count=1` is Krum. Multi-Krum averages several states; the experiments of the paper use `count = n - f`, the number
    of honest clients. Distances between models equal distances between updates, because all clients start from one
    model.

    Args:
        states: n state dicts with equal names, shapes and dtypes.
        byzantine: f, with `n >= 2 f + 3`.

    Raises:
        ValueError: under the conditions of `krum_scores`.

    >>> krum([{"w": torch.tensor(value)} for value in (0.0, 1.0, 3.0, 100.0)], byzantine=0, count=2)
    [1, 0]
    """
    scores = krum_scores(squared_distances(states), byzantine)
    return sorted(range(len(states)), key=scores.__getitem__)[:count]
