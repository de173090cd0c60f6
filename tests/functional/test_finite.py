"""NaN and infinite values are found at any position, without false alarms."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedreid_pl.functional.finite import first_not_finite

FLOATS = st.floats(width=32) | st.sampled_from([3.4e38, -3.4e38, float("inf"), float("-inf"), float("nan")])


@given(st.lists(st.lists(FLOATS, max_size=4), max_size=4))
def test_the_first_tensor_with_a_value_that_is_not_finite_is_named(rows: list[list[float]]) -> None:
    state = {str(number): torch.tensor(row, dtype=torch.float32) for number, row in enumerate(rows)}
    bad = [str(number) for number, row in enumerate(rows) if any(abs(x) == float("inf") or x != x for x in row)]
    assert first_not_finite(state) == (bad[0] if bad else None)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_overflowing_sums_do_not_count_as_infinite_values(dtype: torch.dtype) -> None:
    largest = torch.full((3, 2), torch.finfo(dtype).max, dtype=dtype)
    assert first_not_finite({"largest": largest}) is None
    cancelling = torch.tensor([float("inf"), float("-inf")], dtype=dtype)
    assert first_not_finite({"largest": largest, "x": cancelling}) == "x"


def test_integers_are_finite() -> None:
    assert first_not_finite({"count": torch.tensor(2**62), "yes": torch.tensor([True]), "none": torch.empty(0)}) is None
