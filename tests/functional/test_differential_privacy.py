"""Clipping, noise and epsilon compared with the definition, statistics, and the Gaussian mechanism's exact curve."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import dp_accounting as dp
import pytest
import torch
from dp_accounting import pld, rdp
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import RDPAccountant
from opacus.accountants.utils import get_noise_multiplier
from scipy.optimize import brentq
from scipy.stats import kstest, norm

from fedreid_pl.functional.differential_privacy import (
    ORDERS,
    add_noise,
    clip_update,
    gaussian_epsilon,
    public_weights,
    update_norm,
)
from fedreid_pl.functional.secret_noise import SecretStream

NAMES = ["a", "b"]


def draw(seed: int, size: float = 1.0) -> dict[str, torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return {
        "a": size * torch.randn(3, 4, generator=draws),
        "b": size * torch.randn(5, generator=draws),
        "mean": torch.randn(2, generator=draws),
        "count": torch.tensor(seed),
    }


def flat(state: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([state[name].double().flatten() for name in NAMES])


def test_the_norm_is_that_of_the_parameters_together() -> None:
    sent, answer = draw(1), draw(2)
    assert update_norm(sent, answer, NAMES) == pytest.approx(float(torch.dist(flat(answer), flat(sent))), rel=1e-12)
    other = {**answer, "mean": torch.full((2,), 1e30), "count": torch.tensor(10**15)}
    assert update_norm(sent, other, NAMES) == update_norm(sent, answer, NAMES), "statistics and counters do not count"
    assert update_norm(sent, sent, NAMES) == 0.0


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_clipping_shortens_an_update_and_keeps_its_direction(seed: int, size: float, clip: float) -> None:
    sent, answer = draw(seed), draw(seed + 1, size)
    clipped, before = clip_update(sent, answer, NAMES, clip), update_norm(sent, answer, NAMES)
    after = flat(clipped) - flat(sent)
    assert float(after.norm()) == pytest.approx(min(before, clip), rel=1e-4, abs=1e-5)
    torch.testing.assert_close(after, (flat(answer) - flat(sent)) * min(1.0, clip / before), rtol=1e-4, atol=1e-5)
    assert clipped["mean"] is answer["mean"] and clipped["count"] is answer["count"]
    if before <= clip:
        assert all(clipped[name] is answer[name] for name in answer)


def seeded(seed: int) -> Callable[[Sequence[int]], torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return lambda shape: torch.randn(shape, generator=draws, dtype=torch.float64)


@pytest.mark.parametrize("source", ["seed", "secret"])
def test_noise_has_its_distribution_and_changes_only_parameters(source: str) -> None:
    make = (lambda: seeded(0)) if source == "seed" else (lambda: SecretStream(bytes(range(32)), "test").normal)
    state = {"a": torch.full((40_000,), 7.0), "mean": torch.ones(5), "count": torch.tensor(3)}
    noisy = add_noise(state, ["a"], 0.3, make())
    assert kstest((noisy["a"].double() - 7.0).numpy(), norm(scale=0.3).cdf).pvalue > 0.01
    assert torch.equal(noisy["mean"], state["mean"]) and torch.equal(noisy["count"], state["count"])
    again = add_noise(state, ["a"], 0.3, make())
    assert torch.equal(noisy["a"], again["a"]) and torch.equal(state["a"], torch.full((40_000,), 7.0))
    assert add_noise(state, ["a"], 0.0, make())["a"] is state["a"]


def test_public_weights_do_not_depend_on_the_answers() -> None:
    sizes = {"a": 10, "b": 30, "c": 60}
    assert public_weights(sizes) == pytest.approx({"a": 0.1, "b": 0.3, "c": 0.6})
    sampled = public_weights(sizes, rate=0.2)
    assert sum(0.2 * share for share in sampled.values()) == pytest.approx(1.0), "one on average"


@pytest.mark.parametrize(("noise", "rounds"), [(1.0, 1), (1.0, 30), (4.0, 30), (0.5, 3), (20.0, 300)])
def test_epsilon_is_the_librarys(noise: float, rounds: int) -> None:
    accountant = RDPAccountant()
    for _ in range(rounds):
        accountant.step(noise_multiplier=noise, sample_rate=1.0)
    ours, theirs = gaussian_epsilon(noise, rounds, 1e-5), accountant.get_epsilon(1e-5)
    assert ours <= theirs * (1 + 1e-9), "more orders can only make the bound tighter"
    assert ours == pytest.approx(theirs, rel=0.25)


@pytest.mark.parametrize(("noise", "rounds"), [(1.0, 1), (1.0, 30), (4.0, 30), (8.0, 100)])
def test_epsilon_bounds_the_exact_one_closely(noise: float, rounds: int) -> None:
    """T rounds with z equal one round with z / sqrt(T), with a known exact curve (Balle and Wang, 2018, Theorem 5)."""
    scale = noise / math.sqrt(rounds)

    def excess(epsilon: float) -> float:
        tail = math.exp(epsilon + norm.logcdf(-1 / (2 * scale) - epsilon * scale))
        return norm.cdf(1 / (2 * scale) - epsilon * scale) - tail - 1e-5

    exact = brentq(excess, 0, 200)
    assert exact <= gaussian_epsilon(noise, rounds, 1e-5) <= exact * 1.15


@pytest.mark.parametrize("rate", [1.0, 0.5, 0.1, 0.01, 0.001])
@pytest.mark.parametrize("noise", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("releases", [1, 30, 300])
def test_epsilon_is_that_of_another_library_over_a_grid(rate: float, noise: float, releases: int) -> None:
    """Compares with dp-accounting, for one client added or removed: equal by Renyi divergences, at least its PLD bound.

    Only whole orders are compared, because its series does not always converge at fractional orders.
    """
    event = dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(noise)) if rate < 1 else dp.GaussianDpEvent(noise)
    relation, whole = dp.NeighboringRelation.ADD_OR_REMOVE_ONE, [order for order in ORDERS if order == int(order) > 1]
    renyi = rdp.RdpAccountant(whole, relation)
    renyi.compose(event, releases)
    assert gaussian_epsilon(noise, releases, 1e-5, rate, whole) == pytest.approx(renyi.get_epsilon(1e-5), rel=1e-6)
    if releases == 30:
        losses = pld.PLDAccountant(relation)
        losses.compose(event, releases)
        assert losses.get_epsilon(1e-5) <= gaussian_epsilon(noise, releases, 1e-5, rate) * (1 + 1e-6)


def test_epsilon_grows_with_rounds_and_falls_with_noise() -> None:
    by_round = [gaussian_epsilon(2.0, rounds, 1e-5) for rounds in range(6)]
    assert by_round[0] == 0 and by_round == sorted(set(by_round))
    by_noise = [gaussian_epsilon(noise, 10, 1e-5) for noise in (0.5, 1.0, 2.0, 4.0)]
    assert by_noise == sorted(set(by_noise), reverse=True)


def test_the_librarys_noise_multiplier_stays_within_its_budget() -> None:
    noise = get_noise_multiplier(target_epsilon=8.0, target_delta=1e-5, sample_rate=1.0, steps=50)
    assert 7.9 < gaussian_epsilon(noise, 50, 1e-5) <= 8.0
