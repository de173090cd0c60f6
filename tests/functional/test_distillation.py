"""The teachers' mean and the student's loss compared with loops over plain numbers, and their gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fedreid_pl.functional.distillation import distillation_loss, mean_feature
from fedreid_pl.functional.randomness import generator


def draw(*parts: int, batch: int = 6, dim: int = 5, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(batch, dim, generator=generator(*parts), dtype=torch.float64).to(dtype)


def unit_rows(rows: list[list[float]]) -> list[list[float]]:
    return [[value / math.hypot(*row) for value in row] for row in rows]


@pytest.mark.parametrize("normalize", [False, True])
def test_the_mean_equals_a_loop(normalize: bool) -> None:
    teachers = [draw(number) for number in range(4)]
    rows = [unit_rows(features.tolist()) if normalize else features.tolist() for features in teachers]
    wanted = [[sum(rows[k][i][j] for k in range(4)) / 4 for j in range(5)] for i in range(6)]
    torch.testing.assert_close(mean_feature(iter(teachers), normalize), torch.tensor(wanted, dtype=torch.float64))


@pytest.mark.parametrize("count", [1, 3, 7, 49, 100])
def test_the_mean_of_equal_teachers_is_the_teacher_to_the_bit(count: int) -> None:
    features = draw(9, batch=64, dim=64, dtype=torch.float32)
    result = mean_feature(features for _ in range(count))
    assert torch.equal(result, features) and result.dtype == torch.float32


def test_the_order_of_the_teachers_does_not_matter() -> None:
    teachers = [10.0**k * draw(k, dtype=torch.float32) for k in range(-3, 4)]
    assert torch.equal(mean_feature(teachers), mean_feature(teachers[::-1]))


def test_the_teachers_are_not_changed_and_get_no_gradient() -> None:
    teachers = [draw(number).requires_grad_() for number in range(2)]
    copies = [features.detach().clone() for features in teachers]
    assert not mean_feature(teachers).requires_grad
    assert all(torch.equal(one, other) for one, other in zip(teachers, copies, strict=True))


def test_a_normalised_mean_is_shorter_than_its_teachers() -> None:
    result = mean_feature([torch.tensor([[7.0, 0.0]]), torch.tensor([[0.0, 0.1]])], normalize=True)
    torch.testing.assert_close(result, torch.tensor([[0.5, 0.5]]))


def test_zero_teachers_and_teachers_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="no teacher"):
        mean_feature([])
    with pytest.raises(ValueError, match=r"\(6, 5\) and \(1, 5\)"):
        mean_feature([draw(1), draw(2, batch=1)])


def test_the_loss_and_its_gradient_equal_a_loop() -> None:
    student, target = draw(1).requires_grad_(), draw(2).requires_grad_()
    loss = distillation_loss(student, target)
    loss.backward()
    one, other = student.detach().numpy(), target.detach().numpy()
    total, gradient = 0.0, np.zeros((6, 5))
    for i in range(6):
        for j in range(5):
            total += (one[i, j] - other[i, j]) ** 2
            gradient[i, j] = 2 * (one[i, j] - other[i, j]) / 30
    assert loss.item() == pytest.approx(total / 30)
    np.testing.assert_allclose(student.grad.numpy(), gradient)
    assert target.grad is None


def test_with_a_normalised_student_the_gradient_is_orthogonal_to_the_feature() -> None:
    """d/ds |s/|s| - t|^2: the part of 2 (u - t) that is orthogonal to u = s/|s|, over |s|."""
    student, target = draw(3).requires_grad_(), draw(4)
    loss = distillation_loss(student, target, normalize=True)
    loss.backward()
    total, rows = 0.0, []
    for feature, wanted in zip(student.tolist(), target.tolist(), strict=True):
        length = math.hypot(*feature)
        unit = [value / length for value in feature]
        error = [2 * (u - t) / 30 for u, t in zip(unit, wanted, strict=True)]
        along = sum(e * u for e, u in zip(error, unit, strict=True))
        rows.append([(e - along * u) / length for e, u in zip(error, unit, strict=True)])
        total += sum((u - t) ** 2 for u, t in zip(unit, wanted, strict=True)) / 30
    assert loss.item() == pytest.approx(total)
    torch.testing.assert_close(student.grad, torch.tensor(rows, dtype=torch.float64))
    assert float(distillation_loss(1000 * student.detach(), target, normalize=True)) == pytest.approx(total)


def test_equal_features_give_no_loss_and_no_gradient() -> None:
    student = draw(5, dtype=torch.float32).requires_grad_()
    loss = distillation_loss(student, student.detach().clone())
    loss.backward()
    assert loss.item() == 0.0 and not student.grad.any()


@pytest.mark.parametrize("shapes", [((2, 3), (2, 4)), ((2, 3), (1, 3)), ((3,), (3,)), ((0, 3), (0, 3))])
def test_other_shapes_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match=r"two equal \[B, D\] tensors"):
        distillation_loss(torch.ones(shapes[0]), torch.ones(shapes[1]))
