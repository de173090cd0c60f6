"""Inputs that the retrieval measures refuse, and the dtype of the comparison."""

from __future__ import annotations

import pytest
import torch

from fedreid_pl.functional.retrieval_input import checked_features

ROWS = torch.tensor([0, 1])


def side(**changes):
    columns = {"features": torch.ones(2, 3), "identities": ROWS, "cameras": ROWS} | changes
    return tuple(columns.values())


@pytest.mark.parametrize(
    ("query", "gallery", "wanted"),
    [
        (torch.float16, torch.float16, torch.float32),
        (torch.bfloat16, torch.float32, torch.float32),
        (torch.float64, torch.float32, torch.float64),
    ],
)
def test_both_sides_in_one_dtype_of_float32_at_least(query, gallery, wanted):
    sides = (side(features=torch.ones(2, 3, dtype=query)), side(features=torch.ones(2, 3, dtype=gallery)))
    assert [features.dtype for features in checked_features(*sides[0], *sides[1])] == [wanted, wanted]


@pytest.mark.parametrize(
    ("query", "gallery", "message"),
    [
        (side(features=torch.ones(2)), side(), r"query features must be \[N, D\]"),
        (side(features=torch.ones(0, 3), identities=ROWS[:0], cameras=ROWS[:0]), side(), "the query is empty"),
        (side(), side(cameras=ROWS[:1]), r"gallery cameras must be \[2\] integers"),
        (side(), side(identities=torch.ones(2)), r"gallery identities must be \[2\] integers"),
        (side(), side(features=torch.ones(2, 4)), "query features have 3 values, gallery features 4"),
        (side(identities=ROWS - 1), side(), "query identities must be >= 0"),
        (side(), side(features=torch.full((2, 3), torch.inf)), "gallery features contain NaN or infinite"),
        (side(features=torch.full((2, 3), 1e30)), side(features=torch.full((2, 3), 1e30)), "products overflow"),
    ],
)
def test_invalid_inputs_are_refused(query, gallery, message):
    with pytest.raises(ValueError, match=message):
        checked_features(*query, *gallery)
