"""Dropout over parts of a batch equals torch's dropout over the whole batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedreid_pl.functional.batch_part import BatchPart, working_on
from fedreid_pl.models.batch_dropout import BatchDropout


@pytest.mark.parametrize("probability", [0.5, 0.3, 0.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_parts_have_the_masks_of_the_whole_batch(probability: float, dtype: torch.dtype) -> None:
    features = torch.randn(2, 7, 33).to(dtype)  # two consecutive batches
    parts = BatchPart((0, 2, 5), 7), BatchPart((1, 3, 4, 6), 7)
    torch.manual_seed(3)
    whole = [nn.Dropout(probability)(batch) for batch in features]
    assert bool((whole[0] == 0).any()) == (probability > 0)
    for part in parts:
        torch.manual_seed(3)
        layer = BatchDropout(probability)
        with working_on(part):
            own = [layer(batch[list(part.places)]) for batch in features]
        for value, expected in zip(own, whole, strict=True):
            assert torch.equal(value, expected[list(part.places)])
        torch.manual_seed(3)
        assert torch.equal(layer(features[0]), whole[0]), "without a part, the whole batch is used"


def test_in_eval_mode_no_value_is_dropped_and_no_number_drawn() -> None:
    features, state = torch.randn(2, 5), torch.get_rng_state()
    with working_on(BatchPart((0, 2), 4)):
        assert torch.equal(BatchDropout(0.5).eval()(features), features)
    assert torch.equal(torch.get_rng_state(), state)


def test_gradients_have_the_mask_of_the_values() -> None:
    features = torch.randn(2, 50, requires_grad=True)
    with working_on(BatchPart((3, 1), 4)):
        dropped = BatchDropout(0.5)(features)
    dropped.sum().backward()
    assert features.grad is not None
    assert torch.equal(features.grad, (dropped != 0) * 2.0) and 0 < int((dropped == 0).sum()) < 100
