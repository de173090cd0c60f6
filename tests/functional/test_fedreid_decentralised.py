"""The expert's start compared with its equation, its divergence with sums and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fedreid_pl.functional.fedreid_decentralised import expert_divergence, start_of_expert


def logits(seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return (3 * torch.randn(4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).to(dtype)


def written_out(expert: Tensor, own: Tensor, temperature: float) -> float:
    """Computes T^2 sum_i p_i log(p_i / q_i) image by image with Python floats."""

    def softmax(row: list[float]) -> list[float]:
        powers = [math.exp(value / temperature) for value in row]
        return [power / sum(powers) for power in powers]

    losses = []
    for one, other in zip(expert.tolist(), own.tolist(), strict=True):
        pairs = zip(softmax(one), softmax(other), strict=True)
        losses.append(sum(p * math.log(p / q) for p, q in pairs))
    return temperature**2 * sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 3.0])
def test_the_divergence_equals_the_sum_over_probabilities(temperature: float) -> None:
    expert, own = logits(1), logits(2)
    found = expert_divergence(expert, own, temperature)
    assert found.shape == () and float(found) == pytest.approx(written_out(expert, own, temperature), rel=1e-10)
    assert float(found) != pytest.approx(written_out(own, expert, temperature), rel=0.01), "the expert is the target"


def test_a_case_by_hand() -> None:
    """p = (1/2, 1/2), q = (1/4, 3/4): KL = log(2) / 2 + log(2/3) / 2, times 1."""
    expert, own = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, math.log(3)]])
    wanted = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert float(expert_divergence(expert, own, 1.0)) == pytest.approx(wanted, rel=1e-5)


def test_the_gradient_equals_finite_differences_and_the_expert_has_none() -> None:
    expert, own = logits(3).requires_grad_(), logits(4).requires_grad_()
    loss = expert_divergence(expert, own)
    gradient, none = torch.autograd.grad(loss, (own, expert), allow_unused=True)
    assert none is None
    step = 1e-6
    for row in range(4):
        for column in range(5):
            ends = []
            for sign in (1, -1):
                moved = own.detach().clone()
                moved[row, column] += sign * step
                ends.append(written_out(expert, moved, 3.0))
            assert float(gradient[row, column]) == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-7)


def test_the_divergence_is_zero_for_logits_equal_up_to_a_constant_and_never_negative() -> None:
    own = logits(5, torch.float32)
    assert float(expert_divergence(own + 2, own)) < 1e-5
    half = expert_divergence(logits(6, torch.bfloat16), logits(7, torch.bfloat16))
    assert half.dtype == torch.float32 and float(half) > 0
    assert all(float(expert_divergence(own * scale, own * scale)) >= 0 for scale in (0.1, 1.0, 10.0, 100.0))


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"two equal shapes .* got \(4, 5\) and \(4, 4\)"):
        expert_divergence(logits(1), logits(2)[:, :4])


def states() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    draws = torch.Generator().manual_seed(8)
    made = [{name: torch.randn(2000, generator=draws) for name in ("w", "mean")} for _ in range(2)]
    counts = [{"count": torch.tensor(number)} for number in (3, 40)]
    return {**made[0], **counts[0]}, {**made[1], **counts[1]}


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.9, 1.0])
def test_the_start_is_the_mixture_with_the_received_counters(alpha: float) -> None:
    received, expert = states()
    before = [{name: value.clone() for name, value in state.items()} for state in (received, expert)]
    found = start_of_expert(received, expert, alpha)
    for name in ("w", "mean"):
        for one, other, mixed in zip(*(state[name].tolist()[:50] for state in (received, expert, found)), strict=True):
            assert mixed == pytest.approx((1 - alpha) * one + alpha * other, abs=1e-6)
    assert int(found["count"]) == 3
    assert alpha > 0 or all(torch.equal(found[name], received[name]) for name in received)
    for state, copy in zip((received, expert), before, strict=True):
        assert all(torch.equal(state[name], copy[name]) for name in state), "the inputs do not change"


def test_noise_has_the_given_deviation_and_is_reproducible() -> None:
    received, expert = states()
    plain = start_of_expert(received, expert, 0.5)
    first, again, other = (
        start_of_expert(received, expert, 0.5, 0.1, ["w"], torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    noise = first["w"] - plain["w"]
    assert float(noise.std()) == pytest.approx(0.1, rel=0.1) and abs(float(noise.mean())) < 0.01
    assert torch.equal(first["mean"], plain["mean"])
    assert torch.equal(first["w"], again["w"]) and not torch.equal(first["w"], other["w"])


def test_states_of_other_networks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"different names, e\.g\. a"):
        start_of_expert({"a": torch.ones(1)}, {"b": torch.ones(1)}, 0.5)
