"""The means of a turn compared with numbers computed by hand."""

from __future__ import annotations

import pytest
import torch

from fedreid_pl.training_record import TrainingRecord


def recorded(reported: float) -> TrainingRecord:
    """Returns a record of a step with three images, two of them correct, and a step with one incorrect image."""
    record = TrainingRecord(["triplet"])
    record.add_term("triplet", torch.tensor(4.0))
    record.add(torch.tensor(1.0), torch.eye(3), torch.tensor([0, 1, 0]), reported)
    record.add_term("triplet", torch.tensor(0.0))
    record.add(torch.tensor(3.0), torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([0]), reported)
    return record


def test_means_weight_images_and_not_steps() -> None:
    # loss (3 x 1 + 1 x 3) / 4, accuracy 2 of 4, triplet (3 x 4 + 1 x 0) / 4
    assert recorded(1.0).means(lambda sums: sums) == {"train/loss": 1.5, "train/accuracy": 0.5, "train/triplet": 3.0}


def test_two_processes_that_compute_the_same_steps_count_once() -> None:
    added: list[torch.Tensor] = []

    def reduce_sum(sums: torch.Tensor) -> torch.Tensor:
        added.append(sums)
        return sums * 2

    found = recorded(0.5).means(reduce_sum)
    assert found == pytest.approx({"train/loss": 1.5, "train/accuracy": 0.5, "train/triplet": 3.0})
    assert added[0][-1] == 2.0  # half of the four images


def test_a_cleared_record_starts_again() -> None:
    record = recorded(1.0)
    record.clear()
    record.add_term("triplet", torch.tensor(7.0))
    record.add(torch.tensor(5.0), torch.tensor([[1.0, 0.0]]), torch.tensor([0]), 1.0)
    assert record.means(lambda sums: sums) == {"train/loss": 5.0, "train/accuracy": 1.0, "train/triplet": 7.0}
