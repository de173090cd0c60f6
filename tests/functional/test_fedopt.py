"""Steps of the server compared with torch.optim, scalar loops after the paper, and cases computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fedreid_pl.functional.fedopt import adaptive_step, momentum_step


def draw(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize(("lr", "beta1"), [(1.0, 0.0), (1.0, 0.9), (0.3, 0.5)])
def test_momentum_is_sgd_of_torch_without_dampening(lr: float, beta1: float) -> None:
    reference = torch.nn.Parameter(draw(0, 4, 3))
    optimizer = torch.optim.SGD([reference], lr=lr, momentum=beta1)
    weight, first = reference.detach().clone(), torch.zeros(4, 3)
    for step in range(1, 7):
        reference.grad = 0.1 * draw(step, 4, 3)
        weight, first = momentum_step(weight, reference.grad, first, lr, beta1)
        optimizer.step()
        torch.testing.assert_close(weight, reference.detach(), rtol=1e-5, atol=1e-6)


def test_adagrad_is_that_of_torch() -> None:
    tau = 0.01
    reference = torch.nn.Parameter(draw(0, 5))
    optimizer = torch.optim.Adagrad([reference], lr=0.1, eps=tau, initial_accumulator_value=tau**2)
    weight, first, second = reference.detach().clone(), torch.zeros(5), torch.full((5,), tau**2)
    for step in range(1, 7):
        reference.grad = draw(step, 5)
        weight, first, second = adaptive_step(weight, reference.grad, first, second, "adagrad", 0.1, 0.0, 0.99, tau)
        optimizer.step()
        torch.testing.assert_close(weight, reference.detach(), rtol=1e-5, atol=1e-6)


def by_the_paper(
    x: float, means: list[float], optimizer: str, lr: float, beta1: float, beta2: float, tau: float
) -> list[float]:
    """Computes Algorithm 2 for one number: Delta is the average minus the old model, and the step is added."""
    m, v, path = 0.0, tau**2, []
    for mean in means:
        delta = mean - x
        m = beta1 * m + (1 - beta1) * delta
        if optimizer == "adagrad":
            v += delta**2
        elif optimizer == "yogi":
            v -= (1 - beta2) * delta**2 * math.copysign(1.0, v - delta**2)
        else:
            v = beta2 * v + (1 - beta2) * delta**2
        x += lr * m / (math.sqrt(v) + tau)
        path.append(x)
    return path


@pytest.mark.parametrize("optimizer", ["adagrad", "adam", "yogi"])
@pytest.mark.parametrize(("lr", "beta1", "beta2", "tau"), [(0.01, 0.9, 0.99, 1e-3), (0.1, 0.0, 0.5, 0.1)])
def test_adaptive_steps_are_those_of_the_paper(
    optimizer: str, lr: float, beta1: float, beta2: float, tau: float
) -> None:
    starts = [0.7, -2.0, 0.0]
    means = [[0.5, -2.1, 0.3], [0.9, -1.0, 0.3], [0.4, 5.0, 0.0], [0.41, 0.1, -1.0], [0.41, -3.0, 1e-5]]
    wanted = [
        by_the_paper(start, [row[number] for row in means], optimizer, lr, beta1, beta2, tau)
        for number, start in enumerate(starts)
    ]
    weight = torch.tensor(starts, dtype=torch.float64)
    first, second = torch.zeros_like(weight), torch.full_like(weight, tau**2)
    for step, row in enumerate(means):
        gradient = weight - torch.tensor(row, dtype=torch.float64)
        weight, first, second = adaptive_step(weight, gradient, first, second, optimizer, lr, beta1, beta2, tau)
        assert weight.tolist() == pytest.approx([path[step] for path in wanted], rel=1e-12)


def test_yogi_by_hand() -> None:
    # g^2 = 4 above v = 1: v grows by half of 4; g^2 = 4 below v = 9: v falls by half of 4; equal: v stays
    gradient, second = torch.tensor([2.0, 2.0, 2.0]), torch.tensor([1.0, 9.0, 4.0])
    zeros = torch.zeros(3)
    weight, first, second = adaptive_step(zeros, gradient, zeros, second, "yogi", 1.0, 0.5, 0.5, 1.0)
    assert second.tolist() == [3.0, 7.0, 4.0] and first.tolist() == [1.0, 1.0, 1.0]
    assert weight.tolist() == pytest.approx([-1 / (math.sqrt(3) + 1), -1 / (math.sqrt(7) + 1), -1 / 3])


@pytest.mark.parametrize("optimizer", ["momentum", "adagrad", "adam", "yogi"])
def test_every_optimizer_steps_towards_the_average_and_keeps_unchanged_entries(optimizer: str) -> None:
    weight, mean = draw(1, 20), draw(2, 20)
    mean[:5] = weight[:5]
    if optimizer == "momentum":
        result, _ = momentum_step(weight, weight - mean, torch.zeros(20), 0.1, 0.9)
    else:
        second = torch.full((20,), 1e-6)
        result, *_ = adaptive_step(weight, weight - mean, torch.zeros(20), second, optimizer, 0.1, 0.9, 0.99, 1e-3)
    assert torch.equal(result[:5], weight[:5])
    assert bool(((mean - weight)[5:] * (result - weight)[5:] > 0).all())


def test_adam_moves_a_parameter_by_about_lr_whatever_the_scale() -> None:
    gradient = torch.tensor([1e-1, -1.0, 1e3, -1e6])
    weight, first, second = torch.zeros(4), torch.zeros(4), torch.full((4,), 1e-6)
    for _ in range(500):  # long enough for both moments to settle
        before = weight
        weight, first, second = adaptive_step(weight, gradient, first, second, "adam", 0.01, 0.9, 0.99, 1e-3)
    assert (before - weight).tolist() == pytest.approx([0.01, -0.01, 0.01, -0.01], rel=0.02)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes_and_arguments_are_kept(dtype: torch.dtype) -> None:
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    weight, mean = draw(1, 6, dtype=dtype), draw(2, 6, dtype=dtype)
    first, second = draw(3, 6, dtype=wide), draw(4, 6, dtype=wide).square()
    arguments = [weight, weight.double() - mean.double(), first, second]
    copies = [value.clone() for value in arguments]
    results = adaptive_step(*arguments, "adam", 0.1, 0.9, 0.99, 1e-3)
    assert [value.dtype for value in results] == [dtype, wide, wide]
    stepped, moment = momentum_step(*arguments[:3], lr=1.0, beta1=0.0)
    assert stepped.dtype == dtype and moment.dtype == wide
    torch.testing.assert_close(stepped, mean, rtol=1e-15 if dtype == torch.float64 else 0, atol=1e-15)
    assert all(torch.equal(value, copy) for value, copy in zip(arguments, copies, strict=True))


@pytest.mark.parametrize("optimizer", ["adagrad", "adam", "yogi"])
@pytest.mark.parametrize("size", [1e6, 1e30, 3e38])
def test_one_huge_update_keeps_all_values_finite(optimizer: str, size: float) -> None:
    weight, first, second = torch.zeros(3), torch.zeros(3), torch.full((3,), 1e-6)
    for gradient in (torch.tensor([size, -size, 0.1]), torch.tensor([size, size, 0.1]), torch.full((3,), 0.1)):
        weight, first, second = adaptive_step(weight, gradient, first, second, optimizer, 0.01, 0.9, 0.99, 1e-3)
        for value in (weight, first, second):
            assert bool(torch.isfinite(value).all())
    stepped, moment = torch.zeros(2), torch.zeros(2)
    for _ in range(3):
        stepped, moment = momentum_step(stepped, torch.tensor([size, -size]), moment, 1.0, 0.9)
        assert bool(torch.isfinite(stepped).all() and torch.isfinite(moment).all())


def test_an_unknown_optimizer() -> None:
    with pytest.raises(ValueError, match="must be adagrad, adam or yogi"):
        adaptive_step(*torch.zeros(4, 1), "momentum", 0.1, 0.9, 0.99, 1e-3)
