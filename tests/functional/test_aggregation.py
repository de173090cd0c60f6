"""Weighted averages compared with loops in float64, and invariances."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedreid_pl.functional.aggregation import normalize_weights, normalize_within, weighted_average

State = dict[str, Tensor]


def make_states(count: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> list[tuple[str, State]]:
    draws = torch.Generator().manual_seed(seed)
    return [
        (
            f"client{number}",
            {
                "conv.weight": torch.randn(4, 3, 2, 2, generator=draws).to(dtype).to(memory_format=torch.channels_last),
                "norm.running_var": torch.rand(5, generator=draws).to(dtype) + 0.5,
                "norm.num_batches_tracked": torch.randint(0, 1000, (), generator=draws),
                "scalar": torch.randn((), generator=draws).to(dtype),
            },
        )
        for number in range(count)
    ]


def shares(count: int, seed: int = 0) -> dict[str, float]:
    draws = random.Random(seed)
    values = [draws.randint(1, 5000) for _ in range(count)]
    return {f"client{number}": value / sum(values) for number, value in enumerate(values)}


def average_by_loop(states: list[tuple[str, State]], weights: dict[str, float], name: str) -> list[float]:
    columns = zip(*(state[name].double().flatten().tolist() for _, state in states), strict=True)
    return [
        math.fsum(weights[client] * value for (client, _), value in zip(states, column, strict=True))
        for column in columns
    ]


def test_two_clients_by_hand() -> None:
    states = [
        ("a", {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(7)}),
        ("b", {"w": torch.tensor([5.0, -2.0]), "n": torch.tensor(3)}),
    ]
    result = weighted_average(states, {"a": 0.25, "b": 0.75})
    assert result["w"].tolist() == [4.0, -1.0] and int(result["n"]) == 7


@pytest.mark.parametrize("count", [1, 2, 3, 9, 40])
def test_equals_a_loop_in_float64(count: int) -> None:
    states, weights = make_states(count), shares(count)
    result = weighted_average(iter(states), weights)
    assert list(result) == list(states[0][1])
    for name in ("conv.weight", "norm.running_var", "scalar"):
        assert result[name].dtype == torch.float32 and result[name].shape == states[0][1][name].shape
        wanted = average_by_loop(states, weights, name)
        assert result[name].double().flatten().tolist() == pytest.approx(wanted, rel=1e-5, abs=1e-6)
    counters = [int(state["norm.num_batches_tracked"]) for _, state in states]
    assert int(result["norm.num_batches_tracked"]) == max(counters)
    assert result["norm.num_batches_tracked"].dtype == torch.int64
    assert result["conv.weight"].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_one_client_is_returned_to_the_bit(dtype: torch.dtype) -> None:
    ((client, state),) = make_states(1, dtype=dtype)
    result = weighted_average([(client, state)], {client: 1.0})
    for name, value in state.items():
        assert torch.equal(result[name], value) and result[name].dtype == value.dtype
        assert result[name].data_ptr() != value.data_ptr(), "the result shares no memory with the client's model"


@pytest.mark.parametrize(("dtype", "step"), [(torch.float16, 2**-11), (torch.bfloat16, 2**-8)])
def test_half_precision_is_rounded_once(dtype: torch.dtype, step: float) -> None:
    states, weights = make_states(64, dtype=dtype), shares(64)
    result = weighted_average(states, weights)
    for name in ("conv.weight", "norm.running_var"):
        wanted = average_by_loop(states, weights, name)
        assert result[name].dtype == dtype
        for value, exact in zip(result[name].double().flatten().tolist(), wanted, strict=True):
            assert abs(value - exact) <= step * abs(exact) + 1e-6


def test_inputs_are_not_changed() -> None:
    states, copies = make_states(3), make_states(3)
    weighted_average(states, shares(3), {"norm.running_var"}, "client1")
    for (_, state), (_, copy) in zip(states, copies, strict=True):
        assert all(torch.equal(state[name], copy[name]) for name in copy)


def test_order_of_the_clients_hardly_matters() -> None:
    states, weights = make_states(9), shares(9)
    one, other = weighted_average(states, weights), weighted_average(states[::-1], weights)
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-5, atol=1e-6)


def test_two_copies_of_a_client_with_half_the_weight_equal_one() -> None:
    states, weights = make_states(3), shares(3)
    doubled = [*states, ("again", states[1][1])]
    halved = {**weights, "client1": weights["client1"] / 2, "again": weights["client1"] / 2}
    one, other = weighted_average(states, weights), weighted_average(doubled, halved)
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-5, atol=1e-6)


def test_a_client_of_weight_zero_has_no_effect() -> None:
    states = make_states(3)
    result = weighted_average(states, {"client0": 0.5, "client1": 0.0, "client2": 0.5})
    without = weighted_average([states[0], states[2]], {"client0": 0.5, "client2": 0.5})
    assert torch.equal(result["conv.weight"], without["conv.weight"])


@pytest.mark.parametrize("source", ["client0", "client1", "client2"])
def test_buffers_can_come_from_one_client(source: str) -> None:
    states, weights = make_states(3), shares(3)
    buffers = {"norm.running_var", "norm.num_batches_tracked"}
    result, plain = weighted_average(states, weights, buffers, source), weighted_average(states, weights, buffers)
    for name, value in dict(states)[source].items():
        assert torch.equal(result[name], value if name in buffers else plain[name])


def test_an_empty_average_is_refused() -> None:
    with pytest.raises(ValueError, match="no states"):
        weighted_average([], {})
    with pytest.raises(ValueError, match="nobody"):
        weighted_average(make_states(2), shares(2), {"norm.running_var"}, "nobody")


NUMBERS = st.one_of(st.floats(), st.integers(-(10**400), 10**400), st.floats(0, 10), st.integers(0, 10**6))


@settings(deadline=None, max_examples=200)
@given(st.dictionaries(st.text(max_size=3), NUMBERS, max_size=5))
def test_shares_add_up_to_one_or_are_none(values: dict[str, float]) -> None:
    result = normalize_weights(values)
    proper = all(0 <= value <= 1e300 for value in values.values()) and any(values.values())
    if proper:
        assert result is not None, values
    if any(not value >= 0 for value in values.values()) or not any(values.values()):
        assert result is None
    if result is not None:
        assert list(result) == list(values) and all(0 <= share <= 1 for share in result.values())
        assert math.fsum(result.values()) == pytest.approx(1.0)


def test_shares_do_not_depend_on_scale_or_order() -> None:
    sizes = {"a": 12936, "b": 16522, "c": 248, "d": 1}
    total = 12936 + 16522 + 248 + 1
    assert normalize_weights(sizes) == {name: size / total for name, size in sizes.items()}
    scaled = normalize_weights({name: 7.3 * size for name, size in sizes.items()})
    assert scaled == pytest.approx({name: size / total for name, size in sizes.items()}, rel=1e-12)
    assert normalize_weights(dict(reversed(sizes.items()))) == {name: size / total for name, size in sizes.items()}


@pytest.mark.parametrize("bad", [{"a": 1.0, "b": -1e-9}, {"a": math.nan}, {"a": math.inf, "b": 1.0}, {"a": 0}, {}])
def test_invalid_values_have_no_shares(bad: dict[str, float]) -> None:
    assert normalize_weights(bad) is None
    assert normalize_weights({"a": 1e308, "b": 1e308}) is None, "the sum overflows"


def test_weights_within_groups_keep_their_ratios_and_add_up_to_one() -> None:
    weights = {"a": 0.2, "b": 0.1, "c": 0.4, "d": 0.3}
    groups = {"a": "x", "b": "y", "c": "x", "d": "y"}
    shares, empty = normalize_within(weights, groups, {})
    assert list(shares) == list("abcd") and empty == []
    assert shares == pytest.approx({"a": 1 / 3, "b": 1 / 4, "c": 2 / 3, "d": 3 / 4})


def test_a_single_group_keeps_its_weights_to_the_bit_and_a_group_of_zeros_is_weighted_by_size() -> None:
    weights = {"a": 0.1 + 0.2, "b": 0.7}
    assert normalize_within(weights, {"a": "x", "b": "x"}, {}) == (weights, [])
    shares, empty = normalize_within({"a": 0.0, "b": 0.0, "c": 1.0}, {"a": "x", "b": "x", "c": "y"}, {"a": 1, "b": 3})
    assert shares == {"a": 0.25, "b": 0.75, "c": 1.0} and empty == ["x"]
    assert normalize_within({}, {"a": "x", "b": "y"}, {}) == ({}, [])
