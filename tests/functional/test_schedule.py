"""The step schedule against torch's own scheduler."""

from __future__ import annotations

import pytest
import torch

from fedreid_pl.functional.schedule import step_factor


@pytest.mark.parametrize(("step", "gamma"), [(40, 0.1), (1, 0.5), (7, 0.9), (3, 1.0)])
def test_equals_torch_step_lr(step: int, gamma: float) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step, gamma)
    for epoch in range(130):
        assert step_factor(epoch, step, gamma) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        scheduler.step()


def test_step_zero_never_decays() -> None:
    assert {step_factor(epoch, 0, 0.1) for epoch in (0, 1, 10**6)} == {1.0}
