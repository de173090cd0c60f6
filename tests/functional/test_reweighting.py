"""The cosine distance compared with a Python loop, weights with scipy and by hand, and invariances."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.special import softmax
from sklearn.metrics.pairwise import paired_cosine_distances

from fedreid_pl.functional.aggregation import normalize_weights
from fedreid_pl.functional.reweighting import client_weights, cosine_distance, mix_weights


def draw(batch: int, classes: int, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(batch, classes, generator=torch.Generator().manual_seed(seed)).to(dtype)


def by_loop(before: list[list[float]], after: list[list[float]]) -> float:
    distances = []
    for one, other in zip(before, after, strict=True):
        dot = sum(x * y for x, y in zip(one, other, strict=True))
        distances.append(1 - dot / math.sqrt(sum(x * x for x in one) * sum(y * y for y in other)))
    return sum(distances) / len(distances)


@pytest.mark.parametrize(("batch", "classes"), [(1, 2), (5, 7), (32, 751)])
def test_equals_a_loop_and_scikit_learn(batch: int, classes: int) -> None:
    before, after = draw(batch, classes, 1), draw(batch, classes, 2)
    value = cosine_distance(before, after)
    assert value.shape == () and value.dtype == torch.float32
    assert float(value) == pytest.approx(by_loop(before.tolist(), after.tolist()), rel=1e-6)
    assert float(value) == pytest.approx(paired_cosine_distances(before.double(), after.double()).mean(), rel=1e-6)
    assert torch.equal(cosine_distance(after, before), value)


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        ([[1.0, 0.0]], [[0.0, 3.0]], 1.0),
        ([[1.0, 2.0]], [[-2.0, -4.0]], 2.0),
        ([[1.0, 1.0]], [[1.0, 0.0]], 1 - math.sqrt(0.5)),
        ([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]], 0.5),
        ([[0.0, 0.0]], [[1.0, 0.0]], 1.0),
        ([[0.0, 0.0]], [[0.0, 0.0]], 0.0),
    ],
)
def test_by_hand(before: list, after: list, wanted: float) -> None:
    assert float(cosine_distance(torch.tensor(before), torch.tensor(after))) == pytest.approx(wanted, abs=1e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 3e4])
def test_equal_inputs_give_exactly_zero(dtype: torch.dtype, scale: float) -> None:
    logits = (scale * draw(32, 31, 3).clamp(-2, 2)).to(dtype)
    assert float(cosine_distance(logits, logits.clone())) == 0.0


def test_scale_of_either_side_does_not_matter() -> None:
    before, after = draw(8, 20, 4), draw(8, 20, 5)
    wanted = float(cosine_distance(before, after))
    for one, other in ((2.0, 1.0), (1.0, 1e-12), (1e15, 1e-20), (1e-30, 1e-30)):
        assert float(cosine_distance(before * one, after * other)) == pytest.approx(wanted, rel=1e-5)
    rows = torch.logspace(-3, 3, 8)[:, None]
    assert float(cosine_distance(before * rows, after)) == pytest.approx(wanted, rel=1e-5)


def test_small_changes_have_a_distance_above_zero() -> None:
    before = draw(16, 100, 6, torch.float64)
    previous = 0.0
    for step in (1e-6, 1e-5, 1e-4, 1e-3):
        after = before + step * draw(16, 100, 7, torch.float64)
        value = float(cosine_distance(before, after))
        assert value > previous
        assert value == pytest.approx(by_loop(before.tolist(), after.tolist()), rel=1e-2)
        previous = value


def test_the_order_of_the_images_does_not_matter() -> None:
    before, after, order = draw(9, 5, 8), draw(9, 5, 9), torch.randperm(9)
    assert float(cosine_distance(before[order], after[order])) == pytest.approx(float(cosine_distance(before, after)))


@pytest.mark.parametrize(
    ("one", "other"),
    [((2, 3), (2, 4)), ((2, 3), (3, 3)), ((2, 3), (3,)), ((3,), (3,)), ((0, 3), (0, 3)), ((2, 3, 1),) * 2],
)
def test_other_shapes_are_refused(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"two equal \[B, C\] tensors"):
        cosine_distance(torch.ones(one), torch.ones(other))


SCORES = {"a": 0.1, "b": 0.7, "c": 0.0, "d": 0.25}


def test_without_a_temperature_weights_are_shares() -> None:
    assert client_weights(SCORES) == pytest.approx({"a": 2 / 21, "b": 14 / 21, "c": 0.0, "d": 5 / 21})
    assert client_weights({client: 7 * score for client, score in SCORES.items()}) == pytest.approx(
        client_weights(SCORES)
    )


@pytest.mark.parametrize("temperature", [0.01, 0.2, 1.0, 50.0])
def test_with_a_temperature_weights_are_the_softmax(temperature: float) -> None:
    weights = client_weights(SCORES, temperature)
    assert weights is not None and list(weights) == list(SCORES)
    wanted = softmax([score / temperature for score in SCORES.values()])
    assert list(weights.values()) == pytest.approx(wanted.tolist(), rel=1e-12)
    shifted = client_weights({client: score - 5 for client, score in SCORES.items()}, temperature)
    assert shifted == pytest.approx(weights), "adding a constant does not matter"
    group = client_weights({client: SCORES[client] for client in "ad"}, temperature)
    assert group == pytest.approx(normalize_weights({client: weights[client] for client in "ad"}))


def test_extreme_temperatures_give_one_hot_or_equal_weights() -> None:
    assert client_weights(SCORES, 1e-320) == {"a": 0.0, "b": 1.0, "c": 0.0, "d": 0.0}
    assert client_weights(SCORES, 1e300) == dict.fromkeys(SCORES, 0.25)
    assert client_weights({"a": 1e300, "b": -1e300}, 1e-300) == {"a": 1.0, "b": 0.0}


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("temperature", [None, 1.0])
def test_invalid_scores_have_no_weights(odd: float, temperature: float | None) -> None:
    assert client_weights({"a": 1.0, "b": odd}, temperature) is None
    assert client_weights({}, temperature) is None


def test_all_zero_scores_have_no_shares_but_a_softmax() -> None:
    assert client_weights({"a": 0.0, "b": 0.0}) is None
    assert client_weights({"a": 0.0, "b": 0.0}, 0.1) == {"a": 0.5, "b": 0.5}


def test_mixing_is_linear_and_exact_at_the_ends() -> None:
    weights, others = {"a": 0.1, "b": 0.2, "c": 0.7}, {"c": 0.3, "b": 0.3, "a": 0.4}
    assert mix_weights(weights, others, 1.0) == weights
    assert mix_weights(weights, others, 0.0) == others
    mixed = mix_weights(weights, others, 0.25)
    assert mixed == pytest.approx({"a": 0.325, "b": 0.275, "c": 0.4})
    assert math.fsum(mixed.values()) == pytest.approx(1.0, rel=1e-15)
