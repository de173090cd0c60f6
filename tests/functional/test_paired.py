"""Intervals compared with an enumeration of all samples and a second implementation; coverage; Student's t."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist, fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedreid_pl.functional.paired import (
    DRAWS,
    Difference,
    family,
    holm,
    paired_difference,
    student_cdf,
    student_quantile,
)

T_975 = {1: 12.706204736, 2: 4.302652730, 3: 3.182446305, 4: 2.776445105, 9: 2.262157163, 30: 2.042272456}
"""Values of a printed table of Student's t, 97.5 %."""


@pytest.mark.parametrize(("freedom", "printed"), T_975.items())
def test_students_quantile_is_the_printed_one(freedom: int, printed: float) -> None:
    assert student_quantile(0.975, freedom) == pytest.approx(printed, abs=1e-8)
    assert student_quantile(0.025, freedom) == pytest.approx(-printed, abs=1e-8)
    assert student_cdf(printed, freedom) == pytest.approx(0.975, abs=1e-9)


def test_students_distribution_is_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    for freedom in (1, 2, 3, 4, 7, 20):
        for t in (-3.0, -0.2, 0.0, 1.3, 8.0):
            assert student_cdf(t, freedom) == pytest.approx(stats.t.cdf(t, freedom), abs=1e-12)


def test_students_distribution_is_the_integral_of_its_density() -> None:
    for freedom in (1, 4, 5):
        scale = math.gamma((freedom + 1) / 2) / math.sqrt(freedom * math.pi) / math.gamma(freedom / 2)
        places = np.linspace(0.0, 1.7, 20_001)
        density = scale * (1 + places**2 / freedom) ** (-(freedom + 1) / 2)
        area = float(((density[1:] + density[:-1]) / 2).sum() * (places[1] - places[0]))
        assert student_cdf(1.7, freedom) == pytest.approx(0.5 + area, abs=1e-8)


def enumerated(values: list[float], level: float) -> tuple[float, float]:
    """Computes the interval from all `S ** S` samples instead of random ones."""
    size = len(values)
    means = sorted(fmean(sample) for sample in itertools.product(values, repeat=size))
    t = {3: 4.302652730, 4: 3.182446305}[size]
    stretch = t / NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(size / (size - 1))
    ends = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return tuple(fmean(values) + stretch * (end - fmean(values)) for end in ends)


@pytest.mark.parametrize("values", [[1.0, 2.0, 4.5], [-1.0, 0.2, 0.9, 3.0]])
def test_the_interval_is_that_of_all_samples(values: list[float]) -> None:
    found = paired_difference(values, draws=200_000)
    assert (found.low, found.high) == pytest.approx(enumerated(values, 0.95), abs=0.02 * (max(values) - min(values)))
    assert found.mean == pytest.approx(fmean(values)) and found.seeds == len(values)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_ninety_five_of_a_hundred_intervals_contain_the_truth(seeds: int) -> None:
    """1,000 sets of normal differences: the standard error of the share is 0.7 points."""
    random = np.random.default_rng(7)
    held = [
        found.low <= 1.5 <= found.high
        for number in range(1000)
        for found in [paired_difference(random.normal(1.5, 2.0, seeds), draws=1000, seed=number)]
    ]
    assert 0.92 < fmean(held) < 0.98


def test_intervals_over_two_levels_contain_the_truth_where_one_level_is_too_narrow() -> None:
    """With few persons, their choice shifts the mean of all seeds equally, which seeds alone cannot show."""
    random = np.random.default_rng(3)
    held: dict[str, list[bool]] = {"persons": [], "seeds": []}
    for number in range(300):
        table = random.normal(0.4, 1.0, (1, 12)) + random.normal(0.0, 0.1, (4, 12))
        for name, values in (("persons", table), ("seeds", table.mean(1))):
            found = paired_difference(values, draws=500, seed=number)
            held[name].append(found.low <= 0.4 <= found.high)
    assert fmean(held["persons"]) > 0.93 and fmean(held["seeds"]) < 0.7


def test_persons_are_weighted() -> None:
    table = np.array([[1.0, 5.0], [3.0, 5.0], [2.0, 8.0]])
    found = paired_difference(table, weights=[3.0, 1.0])
    assert found.mean == pytest.approx(fmean([(3 * one + two) / 4 for one, two in table]))
    copied = paired_difference(table[:, [0, 0, 0, 1]])
    assert copied.mean == pytest.approx(found.mean)


@pytest.mark.parametrize(("seeds", "of_seeds"), [(2, 1.0), (3, 0.0), (3, 0.3), (5, 1.0)])
def test_intervals_over_seeds_and_persons_contain_the_truth_and_are_not_too_wide(seeds: int, of_seeds: float) -> None:
    """250 tables of seed + person + rest: the standard error of the share is about 1.4 points."""
    random = np.random.default_rng(5)
    held = []
    for number in range(250):
        table = (
            0.4 + random.normal(0, of_seeds, (seeds, 1)) + random.normal(0, 3, 80) + random.normal(0, 1, (seeds, 80))
        )
        found = paired_difference(table, draws=500, seed=number)
        held.append(found.low <= 0.4 <= found.high)
    assert 0.91 < fmean(held) < 0.998


def test_without_differences_between_seeds_the_interval_is_that_of_the_persons() -> None:
    row = np.random.default_rng(2).normal(1.0, 4.0, 300)
    found = paired_difference(np.stack([row, row]), draws=40_000)
    error = row.std() / math.sqrt(len(row))
    assert (found.low, found.high) == pytest.approx((row.mean() - 1.96 * error, row.mean() + 1.96 * error), rel=0.03)


def test_seeds_and_persons_are_drawn_as_in_a_loop() -> None:
    """A second implementation of the two levels with loops gives the same quantiles for the same number of samples."""
    table = np.random.default_rng(0).normal(1.0, 1.0, (3, 5))
    random = np.random.default_rng(11)
    stretch = 4.302652730 / NormalDist().inv_cdf(0.975) * math.sqrt(3 / 2)
    of_persons = 2.776445105 / NormalDist().inv_cdf(0.975) * math.sqrt(5 / 4)
    means = []
    for _ in range(20_000):
        rows, columns = random.integers(0, 3, 3), random.integers(0, 5, 5)
        seeds_only = fmean(table[row, column] for row in rows for column in range(5))
        both = fmean(table[row, column] for row in rows for column in columns)
        means.append(table.mean() + stretch * (seeds_only - table.mean()) + of_persons * (both - seeds_only))
    found = paired_difference(table, draws=40_000)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.1)


@given(st.lists(st.floats(-5, 5).map(lambda value: round(value, 3)), min_size=2, max_size=6), st.floats(0.1, 10))
def test_the_interval_moves_and_grows_with_the_values(values: list[float], factor: float) -> None:
    found = paired_difference(values, draws=300)
    moved = paired_difference([factor * value + 2 for value in values], draws=300)
    assert (moved.low, moved.high) == pytest.approx((factor * found.low + 2, factor * found.high + 2), abs=1e-6)
    assert found.low <= found.mean + 1e-9 and found.mean - 1e-9 <= found.high


@given(st.lists(st.floats(-2, 5).map(lambda value: round(value, 3)), min_size=2, max_size=6))
def test_p_value_interval_and_verdict_agree(values: list[float]) -> None:
    found = paired_difference(values, draws=300)
    outside = found.low > 0 or found.high < 0
    assert (found.p < 0.05) == outside == (found.verdict != "cannot tell")
    other = paired_difference([-value for value in values], draws=300, level=0.8)
    assert (other.p < 0.2) == (other.low > 0 or other.high < 0)


def test_the_same_seed_is_the_same_interval() -> None:
    assert paired_difference([1.0, 2.0, 0.5]) == paired_difference([1.0, 2.0, 0.5], draws=DRAWS, seed=0)
    assert paired_difference([1.0, 2.0, 0.5]).low != paired_difference([1.0, 2.0, 0.5, 1.5], seed=1).low


def test_one_seed_has_no_interval() -> None:
    found = paired_difference([12.0])
    assert math.isnan(found.low) and math.isnan(found.high)
    assert (found.mean, found.p, found.verdict) == (12.0, 1.0, "cannot tell")


def test_holm_by_hand() -> None:
    """0.01 * 4, 0.02 * 3, then 0.03 * 2, equal to the previous value, then 0.2; all are at most one."""
    assert holm([0.02, 0.2, 0.01, 0.03]) == pytest.approx([0.06, 0.2, 0.04, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([]) == []


def stepwise(p_values: list[float], level: float) -> list[bool]:
    """Holm's procedure: reject the smallest while p <= level / (number of remaining tests)."""
    rejected = [False] * len(p_values)
    for left, index in zip(
        range(len(p_values), 0, -1), sorted(range(len(p_values)), key=p_values.__getitem__), strict=True
    ):
        if p_values[index] * left > level:
            break
        rejected[index] = True
    return rejected


@given(st.lists(st.floats(1e-5, 1.0), max_size=7), st.sampled_from([0.01, 0.05, 0.2]))
def test_adjusted_values_reject_what_the_procedure_rejects(p_values: list[float], level: float) -> None:
    assert [p <= level for p in holm(p_values)] == stepwise(p_values, level)


def test_the_correction_changes_the_verdict_of_a_single_test() -> None:
    clear = paired_difference([3.0, 3.1, 2.9, 3.0, 3.2])
    faint = Difference(1.0, 0.01, 1.99, 0.04, 5, 0.04, "better")
    none = paired_difference([1.0, -1.0, 0.0])
    found = family({"clear": clear, "faint": faint, "none": none})
    assert [one.verdict for one in found.values()] == ["better", "cannot tell", "cannot tell"]
    assert found["faint"].adjusted == pytest.approx(0.08) and found["faint"].low == 0.01
    worse = family({"worse": paired_difference([-3.0, -3.1, -2.9])})
    assert worse["worse"].verdict == "worse"


@pytest.mark.parametrize(
    ("values", "options"),
    [
        ([], {}),
        ([[1.0], [2.0]], {"weights": [1.0, 2.0]}),
        ([[1.0], [2.0]], {"weights": [0.0]}),
        ([1.0, math.nan], {}),
        ([[[1.0]]], {}),
        ([1.0, 2.0], {"draws": 1}),
        ([1.0, 2.0], {"level": 1.0}),
    ],
)
def test_invalid_tables_of_differences_are_refused(values: list, options: dict) -> None:
    with pytest.raises(ValueError, match=r"shape|finite|draws"):
        paired_difference(values, **options)
