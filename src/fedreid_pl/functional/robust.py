"""Aggregation that a few arbitrary updates cannot move far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

CHUNK = 2**16  # values of one tensor that are sorted at a time


def trimmed_mean(states: Sequence[Mapping[str, Tensor]], cut: int) -> dict[str, Tensor]:
    """Of every coordinate the mean without its `cut` smallest and largest values (Yin et al., ICML 2018, Def. 2).

    With `cut = (n - 1) // 2` it is the coordinate-wise median (Def. 1), of an even number of states the mean of the
    two middle values. Values are sorted and summed in float64, 65,536 at a time, and rounded to their dtype once,
    so that neither the order of the states nor values up to float32's largest matter. An integer tensor, such as a
    counter of BatchNorm, takes its lower median: a value that some state has, and not one that an outlier sets.

    Args:
        states: n state dicts with equal names, shapes and dtypes.
        cut: values left out at each end, `0 <= 2 cut < n`.

    Raises:
        ValueError: if nothing would be left.

    >>> trimmed_mean([{"w": torch.tensor(value)} for value in (1.0, 9e9, 2.0, -5.0)], cut=1)
    {'w': tensor(1.5000)}
    """
    if not 0 <= 2 * cut < len(states):
        raise ValueError(f"cutting {cut} of {len(states)} states at each end leaves nothing")
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
    """`floor(trim * count)` values that a trimmed mean leaves out at each end, at most so many that one is left.

    >>> number_cut(10, 0.3), number_cut(4, 0.2), number_cut(2, 0.499)
    (3, 0, 0)
    """
    return min(int(trim * count + 1e-9), (count - 1) // 2)  # 0.29 * 100 is 28.999999999999996


def squared_distances(states: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """`[n, n]` float64 squared Euclidean distances between state dicts, over all their floating-point tensors.

    Accumulated tensor by tensor and pair by pair in float64: two copies of one tensor are all the memory it takes,
    and float32's largest values do not overflow. Equal states are at distance zero exactly.
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
    """Krum's score of every update: the sum of its squared distances to the `n - f - 2` nearest others.

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
    """Positions of the `count` states with the best Krum scores, best first; of equal ones the first comes first.

    `count=1` is Krum. Multi-Krum averages several; `count = n - f`, the number of honest ones, is what the paper's
    experiments use. Distances between models are those between updates, as all start from one model.

    Args:
        states: n state dicts with equal names, shapes and dtypes.
        byzantine: f, with `n >= 2 f + 3`.

    Raises:
        ValueError: as `krum_scores`.

    >>> krum([{"w": torch.tensor(value)} for value in (0.0, 1.0, 3.0, 100.0)], byzantine=0, count=2)
    [1, 0]
    """
    scores = krum_scores(squared_distances(states), byzantine)
    return sorted(range(len(states)), key=scores.__getitem__)[:count]
