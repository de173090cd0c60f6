"""BatchNorm drift: the distance of a client's running statistics from those of the model that the server sent."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

EPSILON = 1e-5
"""Number that BatchNorm adds to a variance before it takes the square root."""


def batch_norm_drift(sent: Mapping[str, Tensor], trained: Mapping[str, Tensor]) -> dict[str, float]:
    """Returns the relative change of running means and variances by local training, averaged over the layers.

    With mean m and variance v `[C]` of a layer in the model that the server sent, and m_k, v_k in the trained model,

        bn_mean_drift = mean over layers of |m_k - m| / |sqrt(v + eps)|
        bn_var_drift  = mean over layers of |v_k - v| / |v + eps|

    where |.| is the Euclidean norm over the channels. The change of the means is measured in standard deviations,
    because the means of a new layer are zero. Norms over whole layers prevent that a channel that never fires
    dominates the result.

    Args:
        sent, trained: state dicts. The entries `X.running_mean` and `X.running_var` that are in both state dicts are
            compared in float64.

    Returns:
        Both numbers by name, at least 0. Empty if the state dicts share no running statistics (no tensor is
        exchanged, or BatchNorm stays at the client).

    >>> sent = {"running_mean": torch.zeros(4), "running_var": torch.full((4,), 4.0)}
    >>> trained = {"running_mean": torch.ones(4), "running_var": torch.full((4,), 5.0)}
    >>> {name: round(value, 4) for name, value in batch_norm_drift(sent, trained).items()}
    {'bn_mean_drift': 0.5, 'bn_var_drift': 0.25}
    """
    means, variances = [], []
    for name in sent:
        spread = f"{name.removesuffix('running_mean')}running_var"
        if not name.endswith("running_mean") or spread not in sent or not {name, spread} <= trained.keys():
            continue
        before = sent[spread].double().clamp(min=0) + EPSILON
        means.append(_norm(trained[name].double() - sent[name].double()) / _norm(before.sqrt()))
        variances.append(_norm(trained[spread].double() - sent[spread].double()) / _norm(before))
    if not means:
        return {}
    return {"bn_mean_drift": sum(means) / len(means), "bn_var_drift": sum(variances) / len(variances)}


def _norm(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values))
