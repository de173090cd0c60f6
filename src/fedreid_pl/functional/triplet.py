"""The triplet loss with the hardest positive and the hardest negative of every image in a batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def batch_hard_triplet(features: Tensor, labels: Tensor, margin: float | None = 0.3) -> Tensor:
    """Returns the batch-hard triplet loss of a batch.

    Hermans et al., "In Defense of the Triplet Loss for Person Re-Identification" (2017), Eq. 5. The loss is the mean
    of `max(0, margin + d(a, p) - d(a, n))` over the anchors a, with the farthest image `p` of the anchor's identity and
    the nearest image `n` of another identity. d is the Euclidean distance, not its square. Every image is an anchor if
    the batch has another image of its identity and an image of another identity.

    The pairs are found without gradients. Their distances are then computed again by subtraction, so that equal images
    have distance 0 and gradient 0, never NaN.

    Args:
        features: `[B, D]` float; half precision is computed in float32.
        labels: `[B]` int64.
        margin: in units of the distance; `None` for the soft margin `log(1 + exp(d(a, p) - d(a, n)))`.

    Returns:
        A scalar, float32 (float64 for float64 features); 0 with zero gradients if the batch has no anchor.

    >>> points = torch.tensor([[0.0], [1.0], [3.0], [5.0]])
    >>> batch_hard_triplet(points, torch.tensor([0, 0, 1, 1]), margin=1.0)  # by anchor: 0, 0, 1, 0
    tensor(0.2500)
    """
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    same = labels[:, None] == labels  # [B, B]
    with torch.no_grad():
        distances = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
        farthest = distances.masked_fill(~same, -torch.inf).argmax(1)  # [B]; the anchor itself only if it is alone
        nearest = distances.masked_fill(same, torch.inf).argmin(1)
        anchors = (same.sum(1) > 1) & ~same.all(1)
    gap = _distance(features, features[farthest]) - _distance(features, features[nearest])
    losses = F.softplus(gap) if margin is None else F.relu(gap + margin)
    return torch.where(anchors, losses, 0.0).sum() / anchors.sum().clamp(min=1)


def _distance(left: Tensor, right: Tensor) -> Tensor:
    return torch.linalg.vector_norm(left - right, dim=1)  # its gradient at zero is zero
