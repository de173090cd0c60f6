"""BatchNorm drift compared with numbers computed by hand and with a loop, and invariances."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from fedreid_pl.functional.batch_norm_drift import batch_norm_drift


def network(seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Conv2d(5, 7, 1), nn.BatchNorm2d(7))
    layers(torch.randn(8, 3, 9, 9) * 2 + 1)
    return layers.state_dict()


def by_loop(sent: dict[str, Tensor], trained: dict[str, Tensor]) -> tuple[float, float]:
    means, variances = [], []
    for layer in ("1", "3"):
        m, v = sent[f"{layer}.running_mean"].tolist(), sent[f"{layer}.running_var"].tolist()
        mk, vk = trained[f"{layer}.running_mean"].tolist(), trained[f"{layer}.running_var"].tolist()
        spread = [value + 1e-5 for value in v]
        shift = math.sqrt(sum((b - a) ** 2 for a, b in zip(m, mk, strict=True)))
        means.append(shift / math.sqrt(sum(spread)))
        change = math.sqrt(sum((b - a) ** 2 for a, b in zip(v, vk, strict=True)))
        variances.append(change / math.sqrt(sum(value**2 for value in spread)))
    return sum(means) / 2, sum(variances) / 2


def test_against_a_loop() -> None:
    sent, trained = network(0), network(1)
    found = batch_norm_drift(sent, trained)
    mean, variance = by_loop(sent, trained)
    assert found == pytest.approx({"bn_mean_drift": mean, "bn_var_drift": variance}, rel=1e-9)
    assert mean > 0 < variance


def test_equal_statistics_give_zero_and_the_order_does_not_matter() -> None:
    sent, trained = network(0), network(1)
    assert batch_norm_drift(sent, sent) == {"bn_mean_drift": 0.0, "bn_var_drift": 0.0}
    shuffled = dict(reversed(list(trained.items())))
    assert batch_norm_drift(sent, shuffled) == batch_norm_drift(sent, trained)
    weights = {name: value * 3 if "running" not in name else value for name, value in trained.items()}
    assert batch_norm_drift(sent, weights) == batch_norm_drift(sent, trained), "only statistics count"


def test_the_scale_of_the_features_does_not_matter() -> None:
    """Features times ten have means times ten and variances times a hundred; only eps causes a difference."""

    def scaled(state: dict[str, Tensor]) -> dict[str, Tensor]:
        factors = {"running_mean": 10.0, "running_var": 100.0}
        return {name: value * factors.get(name.rpartition(".")[2], 1.0) for name, value in state.items()}

    sent, trained = network(0), network(1)
    assert batch_norm_drift(scaled(sent), scaled(trained)) == pytest.approx(batch_norm_drift(sent, trained), rel=1e-4)


def test_a_constant_channel_does_not_dominate() -> None:
    sent = {"running_mean": torch.zeros(2), "running_var": torch.tensor([1.0, 0.0])}
    trained = {"running_mean": torch.zeros(2), "running_var": torch.tensor([1.0, 0.1])}
    assert batch_norm_drift(sent, trained)["bn_var_drift"] == pytest.approx(0.1, rel=1e-4)
    dead = {"running_mean": torch.zeros(2), "running_var": torch.tensor([-1.0, 0.0])}  # hostile but finite values
    assert all(math.isfinite(value) for value in batch_norm_drift(dead, trained).values())


def test_models_without_common_statistics() -> None:
    sent = network(0)
    kept = {name: value for name, value in sent.items() if "running" not in name}
    assert batch_norm_drift({}, {}) == batch_norm_drift(sent, kept) == batch_norm_drift(kept, sent) == {}
    assert batch_norm_drift({"running_mean": torch.zeros(1)}, {"running_mean": torch.ones(1)}) == {}
