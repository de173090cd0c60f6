"""Clustering by first neighbours."""

from __future__ import annotations

import torch
from torch import Tensor


def first_neighbor_clusters(features: Tensor) -> list[int]:
    """Returns the cluster of every row after one step of FINCH by cosine similarity (Sarfraz et al., CVPR 2019, Eq. 1).

    Every row is linked to its first neighbour: the other row with the highest cosine similarity, and of equal
    similarities the first row. Clusters are the connected components: two rows are in one cluster if one is the first
    neighbour of the other, or if they have the same first neighbour. Every cluster has at least two rows, with two
    exceptions:

    - a single row is one cluster;
    - a row without a direction (zero, or not finite) has no neighbour and forms a cluster of its own.

    Args:
        features: `[N, D]` floating-point.

    Returns:
        N cluster numbers. Clusters are numbered from 0 in the order of their first rows.

    Raises:
        ValueError: if `features` is not a matrix.

    >>> first_neighbor_clusters(torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 0.1], [0.0, 5.0]]))
    [0, 1, 0, 1]
    """
    if features.ndim != 2:
        raise ValueError(f"expected an [N, D] tensor, got {tuple(features.shape)}")
    rows = features.detach().to("cpu", torch.float64)
    directed = (rows.isfinite().all(1) & rows.any(1)).nonzero().flatten().tolist()
    labels = list(range(len(rows)))
    if len(directed) > 1:
        rows = rows[directed]
        rows = rows / rows.abs().amax(1, keepdim=True)  # no overflow or underflow in the norm
        rows = rows / rows.norm(dim=1, keepdim=True)
        # |u - v|^2 = 2 - 2 cos(u, v); computed from differences, so that equal rows have exactly equal distances
        distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
        neighbors = distances.fill_diagonal_(torch.inf).argmin(1).tolist()
        for row, neighbor in zip(directed, neighbors, strict=True):
            joined, label = labels[directed[neighbor]], labels[row]
            labels = [label if other == joined else other for other in labels]
    numbers: dict[int, int] = {}
    return [numbers.setdefault(label, len(numbers)) for label in labels]
