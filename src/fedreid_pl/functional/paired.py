"""Paired differences over seeds: bootstrap interval, Holm's correction and verdict."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from functools import cache
from statistics import NormalDist
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

Name = TypeVar("Name", bound=Hashable)
Verdict = Literal["better", "worse", "cannot tell"]
DRAWS = 10_000
_LEAST, _MOST = 1e-6, 1.0  # smallest and largest p value
_CHUNK = 1 << 22  # numbers of resampled persons in memory at a time


class Difference(NamedTuple):
    """The mean of paired differences with its confidence interval, p value and verdict.

    Args:
        mean: mean of the differences.
        low, high: ends of the interval; both NaN for a single seed, which tells nothing about other seeds.
        p: the smallest `1 - level` whose interval excludes zero; 1 for a single seed.
        seeds: number of seeds.
        adjusted: `p` after Holm's correction over a family; equal to `p` without a family.
        verdict: `better` or `worse` if the interval excludes zero and `adjusted` is below `1 - level`.
    """

    mean: float
    low: float
    high: float
    p: float
    seeds: int
    adjusted: float
    verdict: Verdict


def paired_difference(
    differences: npt.ArrayLike,
    level: float = 0.95,
    weights: npt.ArrayLike | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Difference:
    """Returns a bootstrap interval of a mean paired difference over seeds, and over persons if they are given.

    Seeds are drawn with replacement (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13). If
    persons are given, persons are drawn as well. Every seed gets the same drawn persons, because all seeds are
    evaluated on the same persons (the pigeonhole bootstrap: Owen, "The pigeonhole bootstrap", Annals of Applied
    Statistics 1(2), 2007).

    With few seeds, the quantiles of the bootstrap are too close to the mean. With three seeds they cannot be below the
    smallest difference, and the coverage of the "95 %" interval is about 75 %. The part of a sample's deviation from
    the mean that comes from the drawn seeds is therefore multiplied by `t / z * sqrt(S / (S - 1))`: Student's quantile
    with S - 1 degrees of freedom over the normal quantile, and the correction of the standard deviation. The part that
    comes from the drawn persons is multiplied in the same way, with the number of persons in place of S. Hesterberg,
    "What Teachers Should Know About the Bootstrap", The American Statistician 69(4), 2015, section 3.3, motivates this
    for t intervals. For normal differences the coverage is close to `level` from two seeds on. For skewed differences
    and few seeds, no interval without assumptions reaches `level`.

    Args:
        differences: `[S]`, method minus baseline by seed; or `[S, P]`, by seed and person.
        level: confidence level of the interval, in (0, 1).
        weights: `[P]`, weight of each person, such as its number of queries; `None` gives all persons equal weights.
        draws: number of bootstrap samples.
        seed: seed of the draws.

    Raises:
        ValueError: if shapes do not fit, there is no value, a value is not finite, a weight is not positive, `draws` is
            below 2, or `level` is outside (0, 1).

    >>> found = paired_difference([2.0, 2.5, 3.0, 2.2, 2.8])
    >>> found.verdict, round(found.mean, 2), found.low > 0
    ('better', 2.5, True)
    >>> paired_difference([2.0, -1.0, 0.5]).verdict
    'cannot tell'
    """
    values, persons = _checked(differences, weights)
    if draws < 2 or not 0 < level < 1:
        raise ValueError(f"draws={draws}, level={level}: draws must be at least 2 and level between 0 and 1")
    mean = float((values @ persons).mean())
    if len(values) == 1:
        return Difference(mean, math.nan, math.nan, 1.0, 1, 1.0, "cannot tell")
    samples = _resampled(values, persons, draws, np.random.default_rng(seed))
    low, high = _interval(samples, mean, len(values), 1 - level)
    p = _p_value(samples, mean, len(values))
    return _judged(Difference(mean, low, high, p, len(values), p, "cannot tell"), level)


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p values adjusted for a family of tests, in the given order.

    Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6(2), 1979: the
    i-th smallest of m p values (i from 1) is multiplied by m - i + 1. An adjusted value is at least as large as those
    of smaller p values, and at most 1.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, highest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def family(found: Mapping[Name, Difference], level: float = 0.95) -> dict[Name, Difference]:
    """Returns the differences of a family of comparisons with `adjusted` and `verdict` after Holm's correction.

    Args:
        found: differences by name of the comparison; all comparisons of the family.
        level: as in `paired_difference`.

    >>> one = paired_difference([2.0, 2.5, 3.0, 2.2, 2.8])
    >>> family({"a": one, "b": one})["a"].adjusted == 2 * one.p
    True
    """
    adjusted = holm([one.p for one in found.values()])
    pairs = zip(found.items(), adjusted, strict=True)
    return {name: _judged(one._replace(adjusted=p), level) for (name, one), p in pairs}


def student_quantile(share: float, freedom: int) -> float:
    """Returns the quantile of Student's t distribution with a whole number of degrees of freedom.

    Args:
        share: in (0, 1).
        freedom: degrees of freedom, at least 1.

    >>> round(student_quantile(0.975, 4), 3)
    2.776
    """
    if share == 0.5:
        return 0.0
    if share < 0.5:
        return -student_quantile(1 - share, freedom)
    low, high = 0.0, 1.0
    while student_cdf(high, freedom) < share:
        low, high = high, 2 * high
    while high - low > 1e-13 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if student_cdf(middle, freedom) < share else (low, middle)
    return high


def student_cdf(t: float, freedom: int) -> float:
    """Returns the distribution function of Student's t (finite sums of Abramowitz and Stegun, 26.7.3 and 26.7.4).

    >>> student_cdf(0.0, 3), round(student_cdf(1.0, 1), 3)
    (0.5, 0.75)
    """
    angle = math.atan2(t, math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    term = cosine if freedom % 2 else 1.0
    total = term if freedom > 1 or freedom % 2 == 0 else 0.0
    for number in range(3 if freedom % 2 else 2, freedom - 1, 2):
        term *= cosine**2 * (number - 1) / number
        total += term
    inside = 2 / math.pi * (angle + sine * total) if freedom % 2 else sine * total
    return (1 + inside) / 2


def _checked(differences: npt.ArrayLike, weights: npt.ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or not values.size:
        raise ValueError(f"differences have shape {values.shape}; expected [S] or [S, P] with at least one value")
    persons = np.ones(values.shape[1]) if weights is None else np.asarray(weights, dtype=np.float64)
    if persons.shape != values.shape[1:] or not (persons > 0).all():
        raise ValueError(f"weights have shape {persons.shape}; expected {values.shape[1]} positive weights")
    if not (np.isfinite(values).all() and np.isfinite(persons).all()):
        raise ValueError("a difference or a weight is not finite")
    return values, persons / persons.sum()


class _Samples(NamedTuple):
    """Deviations of the bootstrap samples from the mean: `[draws]` by the drawn seeds, and by the drawn persons."""

    seeds: np.ndarray  # in ascending order without persons
    persons: np.ndarray | None
    people: int  # number of persons


def _resampled(values: np.ndarray, persons: np.ndarray, draws: int, random: np.random.Generator) -> _Samples:
    seeds, people = values.shape
    mean = float((values @ persons).mean())
    by_seeds, by_persons = [], []
    step = max(1, _CHUNK // people)
    for start in range(0, draws, step):
        size = min(step, draws - start)
        chosen = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=size) / seeds  # [size, S]
        by_person = chosen @ values  # [size, P]
        of_all = by_person @ persons
        by_seeds.append(of_all - mean)
        if people > 1:
            counts = random.multinomial(people, np.full(people, 1 / people), size=size) * persons
            by_persons.append((by_person * counts).sum(1) / counts.sum(1) - of_all)
    if not by_persons:
        return _Samples(np.sort(np.concatenate(by_seeds)), None, people)
    return _Samples(np.concatenate(by_seeds), np.concatenate(by_persons), people)


def _interval(samples: _Samples, mean: float, seeds: int, outside: float) -> tuple[float, float]:
    """Returns the interval; quantiles between two samples are interpolated."""
    deviations = _stretch(outside, seeds) * samples.seeds
    if samples.persons is not None:
        deviations = np.sort(deviations + _stretch(outside, samples.people) * samples.persons)
    ends = []
    for share in (outside / 2, 1 - outside / 2):
        place = share * (len(deviations) - 1)
        below = min(int(place), len(deviations) - 2)
        end = deviations[below] + (place - below) * (deviations[below + 1] - deviations[below])
        ends.append(float(mean + end))
    return ends[0], ends[1]


@cache
def _stretch(outside: float, size: int) -> float:
    """Returns the factor of deviations among `size` values."""
    normal = NormalDist().inv_cdf(1 - outside / 2)
    return student_quantile(1 - outside / 2, size - 1) / normal * math.sqrt(size / (size - 1))


def _p_value(samples: _Samples, mean: float, seeds: int) -> float:
    """Returns the smallest share outside at which the interval excludes zero, by bisection on its logarithm."""

    def excludes(outside: float) -> bool:
        low, high = _interval(samples, mean, seeds, outside)
        return low > 0 or high < 0

    low, high = math.log(_LEAST), math.log(_MOST)
    if excludes(_LEAST):
        return _LEAST
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if excludes(math.exp(middle)) else (middle, high)
    return math.exp(high)


def _judged(found: Difference, level: float) -> Difference:
    clear = (found.low > 0 or found.high < 0) and found.adjusted < 1 - level
    verdict: Verdict = ("better" if found.mean > 0 else "worse") if clear else "cannot tell"
    return found._replace(verdict=verdict)
