"""The batch-hard triplet loss compared with a loop over all triplets, and its gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fedreid_pl.functional.triplet import batch_hard_triplet

MARGINS = pytest.mark.parametrize("margin", [0.0, 0.3, 5.0, None])


def by_loops(features: Tensor, labels: Tensor, margin: float | None) -> float:
    """Returns the largest loss among each anchor's triplets, averaged over the anchors that have one."""
    points, persons = features.double().tolist(), labels.tolist()
    worst = []
    for a, anchor in enumerate(points):
        losses = []
        for p, positive in enumerate(points):
            for n, negative in enumerate(points):
                if p != a and persons[p] == persons[a] != persons[n]:
                    gap = math.dist(anchor, positive) - math.dist(anchor, negative)
                    losses.append(math.log1p(math.exp(gap)) if margin is None else max(0.0, margin + gap))
        if losses:
            worst.append(max(losses))
    return sum(worst) / len(worst) if worst else 0.0


def draw(size: int, identities: int, dim: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, identities, (size,), generator=draws)
    return torch.randn(size, dim, generator=draws, dtype=torch.float64), labels


@MARGINS
@pytest.mark.parametrize(("size", "identities"), [(2, 1), (3, 2), (9, 3), (12, 7), (16, 2)])
def test_equals_a_loop_over_all_triplets(margin: float | None, size: int, identities: int) -> None:
    for seed in range(5):
        features, labels = draw(size, identities, seed=seed)
        loss = batch_hard_triplet(features, labels, margin)
        assert loss.shape == () and loss.dtype == torch.float64
        assert float(loss) == pytest.approx(by_loops(features, labels, margin), rel=1e-9)
        single = batch_hard_triplet(features.float(), labels, margin)
        assert single.dtype == torch.float32 and float(single) == pytest.approx(float(loss), rel=1e-4, abs=1e-5)


def test_by_hand() -> None:
    features = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0], [6.0, 8.0], [9.0, 9.0]])
    labels = torch.tensor([0, 0, 1, 1, 2])  # the last has no positive pair, but is a negative
    first, second = 5.0 - 1.0, 5.0 - math.hypot(3, 3)
    third, fourth = math.hypot(6, 7) - 1.0, math.hypot(6, 7) - math.hypot(3, 1)
    wanted = (first + second + third + fourth) / 4 + 0.8
    assert float(batch_hard_triplet(features, labels, 0.8)) == pytest.approx(wanted, rel=1e-6)


@MARGINS
def test_gradients(margin: float | None) -> None:
    features, labels = draw(10, 3)
    features.requires_grad_()
    assert torch.autograd.gradcheck(lambda values: batch_hard_triplet(values, labels, margin), (features,))


def test_only_the_hardest_pairs_have_a_gradient() -> None:
    features = torch.tensor([[0.0], [1.0], [4.0], [2.0], [100.0]], requires_grad=True)
    labels = torch.tensor([0, 0, 0, 1, 2])
    batch_hard_triplet(features, labels, 0.5).backward()
    # anchors 0, 1, 2 with pairs (0, 2, 3), (1, 2, 3), (2, 0, 3): d(a, p) - d(a, n) in the signs of the differences
    by_hand = [(-1 + 1) - 1, -1 + 1, 1 + 1 + (1 - 1), -1 - 1 + 1, 0]
    assert (features.grad.flatten() * 3).tolist() == pytest.approx(by_hand)  # type: ignore[union-attr]


@MARGINS
def test_equal_images_have_finite_gradients(margin: float | None) -> None:
    for labels in (torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 2])):
        features = torch.ones(4, 3, requires_grad=True)
        loss = batch_hard_triplet(features, labels, margin)
        assert loss.item() == pytest.approx(math.log(2) if margin is None else margin)
        loss.backward()
        assert torch.equal(features.grad, torch.zeros(4, 3))  # type: ignore[arg-type]
    near = torch.tensor([[1.0], [1.0], [1.0 + 1e-6], [1.0]], requires_grad=True)
    batch_hard_triplet(near, torch.tensor([0, 0, 1, 1]), margin).backward()
    assert near.grad is not None and float(near.grad.abs().max()) <= 2


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [5, 5, 5, 5]])
@MARGINS
def test_a_batch_without_an_anchor_gives_zero_that_can_be_differentiated(
    labels: list[int], margin: float | None
) -> None:
    features = torch.randn(4, 3, requires_grad=True)
    loss = batch_hard_triplet(features, torch.tensor(labels), margin)
    assert float(loss) == 0.0
    loss.backward()
    assert torch.equal(features.grad, torch.zeros(4, 3))  # type: ignore[arg-type]


@MARGINS
def test_order_place_and_direction_do_not_matter(margin: float | None) -> None:
    features, labels = draw(12, 4)
    loss = float(batch_hard_triplet(features, labels, margin))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    turn = torch.linalg.qr(draw(4, 1)[0]).Q
    assert float(batch_hard_triplet(features[order], labels[order] + 7, margin)) == pytest.approx(loss, rel=1e-9)
    assert float(batch_hard_triplet(features @ turn + 20.0, labels, margin)) == pytest.approx(loss, rel=1e-9)


def test_large_and_close_features_are_distinguished() -> None:
    features, labels = draw(40, 5, dim=64)
    features = (features * 0.01 + 100.0).float()  # |x|^2 + |y|^2 - 2xy would be noise
    wanted = by_loops(features, labels, 0.3)
    assert float(batch_hard_triplet(features, labels, 0.3)) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    features, labels = draw(12, 4, dim=500)
    half = (features * 30).to(dtype).requires_grad_()  # the square of a distance is beyond float16
    loss = batch_hard_triplet(half, labels)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(by_loops(half.detach(), labels, 0.3), rel=1e-4)
    loss.backward()
    assert half.grad is not None and half.grad.dtype == dtype and bool(torch.isfinite(half.grad).all())
