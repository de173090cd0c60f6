"""Robust aggregation compared with numpy, scipy and brute force, with honest clients and with an attacker."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedreid_pl.functional.robust import CHUNK, krum, krum_scores, number_cut, squared_distances, trimmed_mean

State = dict[str, Tensor]


def make_states(count: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> list[State]:
    draws = torch.Generator().manual_seed(seed)
    return [
        {
            "conv": torch.randn(4, 3, 2, 2, generator=draws).to(dtype).to(memory_format=torch.channels_last),
            "running_var": torch.rand(5, generator=draws).to(dtype) + 0.5,
            "scalar": torch.randn((), generator=draws).to(dtype),
            "count": torch.randint(0, 1000, (), generator=draws),
        }
        for _ in range(count)
    ]


def stacked(states: list[State], name: str) -> np.ndarray:
    return np.stack([state[name].double().numpy() for state in states])


def median(states: list[State]) -> State:
    return trimmed_mean(states, (len(states) - 1) // 2)


def by_brute_force(states: list[State], byzantine: int) -> list[float]:
    """Computes scores from the definition, on all floating-point values in one list."""
    points = [
        [v for value in s.values() if value.is_floating_point() for v in value.flatten().tolist()] for s in states
    ]
    scores = []
    for i, one in enumerate(points):
        distances = sorted(
            sum((x - y) ** 2 for x, y in zip(one, other, strict=True)) for j, other in enumerate(points) if j != i
        )
        scores.append(sum(distances[: len(points) - byzantine - 2]))
    return scores


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9, 20])
def test_the_median_is_that_of_numpy(count: int) -> None:
    states = make_states(count)
    result = median(states)
    assert list(result) == list(states[0])
    for name in ("conv", "running_var", "scalar"):
        assert result[name].dtype == torch.float32 and result[name].shape == states[0][name].shape
        assert np.array_equal(result[name].numpy(), np.median(stacked(states, name), axis=0).astype(np.float32))
    assert int(result["count"]) == sorted(int(state["count"]) for state in states)[(count - 1) // 2]
    assert result["count"].dtype == torch.int64
    assert result["conv"].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("trim", [0.0, 0.1, 0.2, 0.34, 0.49])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 9, 20])
def test_the_trimmed_mean_is_that_of_scipy(count: int, trim: float) -> None:
    states = make_states(count)
    result = trimmed_mean(states, number_cut(count, trim))
    for name in ("conv", "running_var", "scalar"):
        wanted = torch.from_numpy(np.asarray(scipy.stats.trim_mean(stacked(states, name), trim, axis=0)))
        torch.testing.assert_close(result[name].double(), wanted, rtol=1e-6, atol=1e-7)


def test_four_states_by_hand() -> None:
    states = [{"w": torch.tensor([a, b])} for a, b in ((1.0, 8.0), (4.0, -8.0), (2.0, 0.5), (-7.0, 1.0))]
    assert trimmed_mean(states, 1)["w"].tolist() == [1.5, 0.75]
    assert trimmed_mean(states, 0)["w"].tolist() == [0.0, 0.375]
    for cut in (2, -1):
        with pytest.raises(ValueError, match="leaves no value"):
            trimmed_mean(states, cut)


def test_tensors_longer_than_a_chunk() -> None:
    length = 2 * CHUNK + 3
    states = [{"w": torch.randn(length, generator=torch.Generator().manual_seed(seed))} for seed in range(4)]
    wanted = np.median(stacked(states, "w"), axis=0).astype(np.float32)
    assert np.array_equal(median(states)["w"].numpy(), wanted)
    assert median([{"w": torch.empty(0, 3)}] * 3)["w"].shape == (0, 3)


@pytest.mark.parametrize(
    ("count", "trim", "wanted"),
    [(9, 0.2, 1), (10, 0.2, 2), (3, 0.2, 0), (3, 0.34, 1), (10, 0.3, 3), (100, 0.29, 29), (4, 0.49, 1), (1, 0.49, 0)],
)
def test_number_cut(count: int, trim: float, wanted: int) -> None:
    assert number_cut(count, trim) == wanted


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 500), st.floats(0, 0.5, exclude_max=True))
def test_trimming_always_leaves_a_client(count: int, trim: float) -> None:
    cut = number_cut(count, trim)
    assert 0 <= 2 * cut < count and trim * count - 1 < cut <= trim * count + 1e-8


@pytest.mark.parametrize(("count", "byzantine"), [(3, 0), (5, 0), (5, 1), (9, 1), (9, 3), (12, 2)])
def test_krum_is_the_point_nearest_the_others(count: int, byzantine: int) -> None:
    for seed in range(5):
        states = make_states(count, seed)
        wanted = by_brute_force(states, byzantine)
        assert krum_scores(squared_distances(states), byzantine) == pytest.approx(wanted, rel=1e-12)
        ranked = krum(states, byzantine, count)
        assert sorted(ranked) == list(range(count))
        rounded = [round(wanted[number], 9) for number in ranked]
        assert rounded == sorted(rounded)
        assert krum(states, byzantine, 3) == ranked[:3] and krum(states, byzantine) == ranked[:1]


def test_krum_on_a_line_by_hand() -> None:
    # f = 1: two nearest others; 0: 1+9, 1: 1+4, 3: 4+1 (to 1 and 4), 4: 1+9, 50: 46^2+47^2
    points = [{"w": torch.tensor([value])} for value in (0.0, 1.0, 3.0, 4.0, 50.0)]
    assert krum_scores(squared_distances(points), 1) == [10.0, 5.0, 5.0, 10.0, 4325.0]
    assert krum(points, 1, count=5) == [1, 2, 0, 3, 4], "with equal scores the first client comes first"
    assert krum(points[::-1], 1, count=5) == [2, 3, 1, 4, 0]


@pytest.mark.parametrize(("count", "byzantine"), [(2, 0), (4, 1), (6, 2), (5, -1)])
def test_krum_needs_enough_clients(count: int, byzantine: int) -> None:
    with pytest.raises(ValueError, match="2 f"):
        krum(make_states(count), byzantine)


def test_distances_are_those_of_torch_and_zero_between_equals() -> None:
    states = make_states(6)
    states[4] = {name: value.clone() for name, value in states[1].items()}
    flat = torch.stack(
        [torch.cat([s[name].reshape(-1).double() for name in ("conv", "running_var", "scalar")]) for s in states]
    )
    distances = squared_distances(states)
    wanted = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist").square()
    torch.testing.assert_close(distances, wanted, rtol=1e-12, atol=0)
    assert distances[1, 4] == 0 and torch.equal(distances, distances.T) and not distances.diagonal().any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_order_of_the_clients_does_not_matter_to_the_bit(dtype: torch.dtype) -> None:
    states = make_states(5, dtype=dtype)
    for order in itertools.islice(itertools.permutations(range(5)), 0, 120, 17):
        shuffled = [states[number] for number in order]
        for cut in (0, 1, 2):
            one, other = trimmed_mean(states, cut), trimmed_mean(shuffled, cut)
            assert all(torch.equal(one[name], other[name]) and one[name].dtype == states[0][name].dtype for name in one)
        assert order[krum(shuffled, 1)[0]] == krum(states, 1)[0]


def test_copies_of_one_client() -> None:
    (state,) = make_states(1)
    for count in (1, 2, 3, 6):
        for cut in range((count + 1) // 2):
            result = trimmed_mean([state] * count, cut)
            for name in ("conv", "running_var", "scalar", "count"):
                assert torch.equal(result[name], state[name])
                assert result[name].data_ptr() != state[name].data_ptr()
    assert krum([state] * 5, 1, count=2) == [0, 1]
    assert krum([*make_states(3, seed=1), state, state], 0) == [3], "the copy is at distance zero"


@pytest.mark.parametrize("size", [1e6, -1e6, 1e30, 3e38])
def test_one_attacker_cannot_move_the_result_out_of_the_honest_range(size: float) -> None:
    honest = make_states(6)
    lie = {name: torch.full_like(value, size) for name, value in honest[0].items() if value.is_floating_point()}
    lie["count"] = torch.tensor(2**63 - 1)
    for place in (0, 3, 6):
        states = [*honest[:place], lie, *honest[place:]]
        chosen = krum(states, 1, count=6)
        assert place not in chosen and all(np.isfinite(krum_scores(squared_distances(states), 1)))
        for result in (median(states), trimmed_mean(states, 1), states[chosen[0]]):
            for name in honest[0]:
                values = stacked(honest, name)
                value = result[name].double().numpy()
                assert (values.min(0) <= value).all() and (value <= values.max(0)).all(), name


def test_two_attackers_that_agree_with_each_other() -> None:
    honest = make_states(5)
    lie = {name: torch.full_like(value, 30) for name, value in honest[0].items()}
    states = [lie, *honest, lie]
    assert set(krum(states, 2, count=5)) == {1, 2, 3, 4, 5}
    result = trimmed_mean(states, 2)
    for name in ("conv", "running_var", "scalar"):
        values = stacked(honest, name)
        assert (values.min(0) <= result[name].numpy()).all() and (result[name].numpy() <= values.max(0)).all()


def test_krum_detects_an_attack_on_statistics_only() -> None:
    states = make_states(5)
    middle = krum(states, 1)[0]
    states[middle] = {**states[middle], "running_var": torch.full((5,), 100.0)}
    assert middle not in krum(states, 1, count=4)


def test_inputs_are_not_changed() -> None:
    states, copies = make_states(5), make_states(5)
    median(states), trimmed_mean(states, 1), krum(states, 1)
    for state, copy in zip(states, copies, strict=True):
        assert all(torch.equal(state[name], copy[name]) for name in copy)
