"""Checks of the input of retrieval measures: query and gallery features with identities and cameras."""

from __future__ import annotations

import torch
from torch import Tensor

_KEY_SEED = 20201
_KEY_ROWS = 1024  # rows whose keys are computed at a time


def checked_features(
    query: Tensor,
    query_identities: Tensor,
    query_cameras: Tensor,
    gallery: Tensor,
    gallery_identities: Tensor,
    gallery_cameras: Tensor,
) -> tuple[Tensor, Tensor]:
    """Checks query and gallery and returns their features `[Q, D]` and `[G, D]` in one dtype, at least float32.

    Raises:
        ValueError: if there is no query or no gallery row, shapes or dtypes do not fit, a query's identity is
            negative, or a feature is NaN, infinite or so large that scores would overflow.
    """
    _check_columns("query", query, query_identities, query_cameras)
    _check_columns("gallery", gallery, gallery_identities, gallery_cameras)
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(f"query features have {query.shape[1]} values, gallery features {gallery.shape[1]}")
    if bool((query_identities < 0).any()):
        raise ValueError("query identities must be >= 0; junk and distractors belong to the gallery only")
    dtype = torch.promote_types(torch.promote_types(query.dtype, gallery.dtype), torch.float32)
    query, gallery = query.to(dtype), gallery.to(dtype)
    _check_scores_are_finite(query, gallery)
    return query, gallery


def in_canonical_order(features: Tensor, identities: Tensor, cameras: Tensor) -> Tensor:
    """Returns an order of the rows that depends on their content and not on their positions, `[N]` int64.

    Rows are sorted by a number computed from the bits of their features, then by identity and camera. Any permutation
    of the rows gives the same sequence. Rows with equal features, identity and camera are interchangeable.

    Args:
        features: `[N, D]` float32 or float64.
        identities, cameras: `[N]` integers.
    """
    bits = torch.int32 if features.dtype == torch.float32 else torch.int64
    draws = torch.Generator().manual_seed(_KEY_SEED)
    factors = torch.randint(-(2**62), 2**62, (features.shape[1],), generator=draws).to(features.device)
    parts = features.contiguous().view(bits).split(_KEY_ROWS)
    keys = torch.cat([(part.long() * factors).sum(1) for part in parts])  # overflow wraps around
    order = cameras.argsort(stable=True)
    order = order[identities[order].argsort(stable=True)]
    return order[keys[order].argsort(stable=True)]


def _check_columns(name: str, features: Tensor, identities: Tensor, cameras: Tensor) -> None:
    if features.dim() != 2 or not features.is_floating_point():
        raise ValueError(f"{name} features must be [N, D] floating point, got {list(features.shape)} {features.dtype}")
    if len(features) == 0:
        raise ValueError(f"the {name} is empty")
    for column, values in (("identities", identities), ("cameras", cameras)):
        if values.shape != (len(features),) or values.is_floating_point():
            raise ValueError(
                f"{name} {column} must be [{len(features)}] integers, got {list(values.shape)} {values.dtype}"
            )


def _check_scores_are_finite(query: Tensor, gallery: Tensor) -> None:
    bound = float(query.shape[1])
    for name, features in (("query", query), ("gallery", gallery)):
        low, high = (float(value) for value in features.aminmax()) if features.numel() else (0.0, 0.0)
        largest = max(abs(low), abs(high))
        if not largest < torch.inf:  # a NaN anywhere makes both ends NaN
            raise ValueError(f"{name} features contain NaN or infinite values")
        bound *= largest
    if not bound < torch.finfo(query.dtype).max:
        raise ValueError("features are so large that their products overflow; normalise them")
