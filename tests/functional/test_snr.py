"""SNR's loss compared with numpy in float64, and its gradient with finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedreid_pl.functional.snr import causality_loss


def entropy(logits: np.ndarray) -> float:
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return float(-(p * np.log(p)).sum(axis=1).mean())


def test_the_loss_is_two_comparisons_of_entropies() -> None:
    draws = torch.Generator().manual_seed(0)
    kept, normal, dropped = (torch.randn(4, 5, generator=draws, dtype=torch.float64) * 2 for _ in range(3))
    first, second, third = (entropy(logits.numpy()) for logits in (kept, normal, dropped))
    wanted = np.log1p(np.exp(first - second)) + np.log1p(np.exp(second - third))
    assert float(causality_loss(kept, normal, dropped)) == pytest.approx(wanted)


def test_the_gradient_equals_finite_differences() -> None:
    draws = torch.Generator().manual_seed(1)
    logits = [torch.randn(3, 4, generator=draws, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(causality_loss, logits)


def test_the_loss_is_small_if_the_kept_part_is_certain_and_the_dropped_part_is_not() -> None:
    sharp, soft, flat = torch.tensor([[9.0, 0, 0]]), torch.tensor([[1.0, 0, 0]]), torch.zeros(1, 3)
    assert causality_loss(sharp, soft, flat) < causality_loss(flat, soft, sharp)
