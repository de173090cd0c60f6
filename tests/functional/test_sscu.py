"""SSCU's memory compared with numpy, in float64 where the function allows it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedreid_pl.functional.sscu import memory_loss, prototypes_of, updated_memory

DRAWS = torch.Generator().manual_seed(0)
FEATURES = torch.randn(9, 5, generator=DRAWS)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 0, 2])


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def test_prototypes_are_normalised_means_of_normalised_features() -> None:
    found = prototypes_of(FEATURES, LABELS, 3).numpy()
    for label in range(3):
        own = [unit(row) for row, other in zip(FEATURES.double().numpy(), LABELS, strict=True) if other == label]
        np.testing.assert_allclose(found[label], unit(np.mean(own, axis=0)), rtol=1e-6)
    torch.testing.assert_close(prototypes_of(7 * FEATURES, LABELS, 3), prototypes_of(FEATURES, LABELS, 3))


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_the_loss_is_cross_entropy_over_cosines(temperature: float) -> None:
    memory, total = prototypes_of(FEATURES.flip(0), LABELS, 3), 0.0
    for row, label in zip(FEATURES.double().numpy(), LABELS.tolist(), strict=True):
        scores = np.array([unit(row) @ prototype for prototype in memory.double().numpy()]) / temperature
        total += np.log(np.exp(scores - scores[label]).sum())
    assert float(memory_loss(FEATURES, memory, LABELS, temperature)) == pytest.approx(total / 9, rel=1e-5)


def test_the_gradient_of_the_loss_equals_finite_differences() -> None:
    memory, features = prototypes_of(FEATURES, LABELS, 3), FEATURES[:3].clone().requires_grad_()
    memory_loss(features, memory, LABELS[:3], 0.5).backward()
    for place in [(0, 0), (1, 3), (2, 4)]:
        more, less = FEATURES[:3].double().clone(), FEATURES[:3].double().clone()
        more[place] += 1e-3
        less[place] -= 1e-3
        values = [
            -torch.log_softmax(torch.nn.functional.normalize(x, dim=1) @ memory.double().t() / 0.5, 1)
            .gather(1, LABELS[:3, None])
            .mean()
            for x in (more, less)
        ]
        assert features.grad is not None
        assert float(features.grad[place]) == pytest.approx(float(values[0] - values[1]) / 2e-3, rel=1e-3, abs=1e-5)


def test_features_update_their_prototype_one_after_the_other() -> None:
    memory = prototypes_of(FEATURES, LABELS, 3)
    wanted = memory.double().numpy().copy()
    for row, label in zip(FEATURES.double().numpy(), LABELS.tolist(), strict=True):
        wanted[label] = unit(0.9 * wanted[label] + 0.1 * unit(row))
    np.testing.assert_allclose(updated_memory(memory, FEATURES, LABELS).numpy(), wanted, rtol=1e-5, atol=1e-6)
    first = updated_memory(updated_memory(memory, FEATURES[:4], LABELS[:4]), FEATURES[4:], LABELS[4:])
    torch.testing.assert_close(first, updated_memory(memory, FEATURES, LABELS))
    assert torch.equal(memory, prototypes_of(FEATURES, LABELS, 3)), "the memory does not change"
    assert not torch.equal(updated_memory(memory, FEATURES, LABELS), updated_memory(memory, FEATURES.flip(0), LABELS))
