"""The memory of SSCU: one prototype per identity, and a loss that classifies features by the prototypes.

Xu et al., "Positive Style Accumulation: A Style Screening and Continuous Utilization Framework for Federated DG-ReID",
ACM MM 2025 (arXiv 2507.16238).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def prototypes_of(features: Tensor, labels: Tensor, identities: int) -> Tensor:
    """Returns the normalised mean of the normalised features of every identity, `[identities, D]` float32.

    Args:
        features: `[N, D]` float.
        labels: `[N]` int64 in `0..identities-1`; each occurs.
        identities: number of identities.

    >>> prototypes_of(torch.tensor([[3.0, 0.0], [0.0, 5.0], [0.0, 2.0]]), torch.tensor([0, 0, 1]), 2)
    tensor([[0.7071, 0.7071],
            [0.0000, 1.0000]])
    """
    units = F.normalize(features.double(), dim=1)
    sums = units.new_zeros(identities, units.shape[1]).index_add_(0, labels, units)
    return F.normalize(sums, dim=1).float()  # sum and mean have the same direction


def memory_loss(features: Tensor, prototypes: Tensor, labels: Tensor, temperature: float = 0.05) -> Tensor:
    """Returns L_mem: cross-entropy over the cosines between features and prototypes, divided by a temperature.

    Args:
        features: `[B, D]` float.
        prototypes: `[identities, D]`, of length 1, without gradients.
        labels: `[B]` int64.
        temperature: 0.05 in the published code.

    >>> memory_loss(torch.tensor([[2.0, 0.0]]), torch.eye(2), torch.tensor([0]), temperature=1.0)
    tensor(0.3133)
    """
    cosines = F.normalize(features.float(), dim=1) @ prototypes.to(features.device).t()
    return F.cross_entropy(cosines / temperature, labels)


@torch.no_grad()
def updated_memory(prototypes: Tensor, features: Tensor, labels: Tensor, momentum: float = 0.9) -> Tensor:
    """Returns the prototypes after `c_y <- normalize(momentum c_y + (1 - momentum) f)` for every feature in turn.

    Args:
        prototypes: `[identities, D]`, of length 1.
        features: f before normalisation, `[B, D]`, in the order of the updates.
        labels: y, `[B]` int64.
        momentum: 0.9 in the published code.

    >>> updated_memory(torch.eye(2), torch.tensor([[0.0, 4.0]]), torch.tensor([0]), momentum=0.5)
    tensor([[0.7071, 0.7071],
            [0.0000, 1.0000]])
    """
    changed = prototypes.clone()
    for unit, label in zip(F.normalize(features.to(changed), dim=1), labels.tolist(), strict=True):
        changed[label] = F.normalize(momentum * changed[label] + (1 - momentum) * unit, dim=0)
    return changed
