"""Open-set measures against scikit-learn and against loops over queries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_curve
from torch.nn.functional import normalize

from fedreid_pl.functional.open_set import (
    false_alarms,
    identified,
    open_set_scores,
    open_set_summary,
    threshold_at_far,
    threshold_at_fpr,
    tpr_at_fpr,
)


def made_set(seed: int) -> tuple[torch.Tensor, ...]:
    draws = torch.Generator().manual_seed(seed)
    centre = torch.randn(30, 8, generator=draws)
    query_ids = torch.arange(30)
    gallery_ids = torch.cat([torch.arange(30).repeat(4), torch.full((10,), -1), torch.full((15,), -2)])
    around = torch.cat([centre.repeat(4, 1), torch.randn(25, 8, generator=draws)])
    query = normalize(centre + 0.8 * torch.randn(30, 8, generator=draws))
    gallery = normalize(around + 0.8 * torch.randn(145, 8, generator=draws))
    cameras = torch.randint(3, (175,), generator=draws)
    return query, query_ids, cameras[:30], gallery, gallery_ids, cameras[30:]


def pairs(columns: tuple[torch.Tensor, ...]) -> list[list[tuple[float, bool]]]:
    """Returns (score, same person) of every counted pair by query, computed by a loop."""
    query, query_ids, query_cameras, gallery, gallery_ids, gallery_cameras = (column.tolist() for column in columns)
    found = []
    for feature, person, camera in zip(query, query_ids, query_cameras, strict=True):
        found.append(
            [
                (float(np.float32(np.dot(np.float32(feature), np.float32(other)))), person == identity)
                for other, identity, seen in zip(gallery, gallery_ids, gallery_cameras, strict=True)
                if identity != -1 and not (identity == person and seen == camera)
            ]
        )
    return found


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_tpr_is_that_of_the_roc_curve(seed: int) -> None:
    columns = made_set(seed)
    scores = open_set_scores(*columns, largest_fpr=0.2, chunk=7)
    flat = [pair for query in pairs(columns) for pair in query]
    fpr, tpr, _ = roc_curve([same for _, same in flat], [score for score, _ in flat], drop_intermediate=False)
    for rate in (0.0, 0.001, 0.01, 0.1, 0.2):
        assert tpr_at_fpr(scores, rate) == pytest.approx(tpr[fpr <= rate].max(), abs=1e-6)
    assert scores.impostor_pairs == sum(not same for _, same in flat)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_identification_by_a_loop(seed: int) -> None:
    columns = made_set(seed)
    scores = open_set_scores(*columns, chunk=11)
    queries = pairs(columns)
    for rate in (0.0, 0.1, 0.5):
        threshold = threshold_at_far(scores, rate)
        alarms = [max(score for score, same in query if not same) > threshold + 1e-6 for query in queries]
        assert sum(alarms) / len(alarms) <= rate + 1e-9
        assert false_alarms(scores, threshold) == pytest.approx(sum(alarms) / len(alarms), abs=1e-6)
        known = [query for query in queries if any(same for _, same in query)]
        hits = [max(query)[1] and max(query)[0] > threshold for query in known]
        assert identified(scores, threshold) == pytest.approx(sum(hits) / len(known), abs=1e-6)


def test_a_lower_threshold_would_accept_too_many() -> None:
    scores = open_set_scores(*made_set(3), largest_fpr=1.0)
    threshold = threshold_at_fpr(scores, 0.05)
    accepted = int((scores.impostor > threshold).sum())
    assert accepted <= 0.05 * scores.impostor_pairs < accepted + 1


def test_gallery_order_and_chunk_do_not_matter() -> None:
    query, ids, cameras, *gallery = made_set(4)
    order = torch.randperm(145, generator=torch.Generator().manual_seed(1))
    one = open_set_summary(open_set_scores(query, ids, cameras, *gallery))
    two = open_set_summary(open_set_scores(query, ids, cameras, *(column[order] for column in gallery), chunk=3))
    assert one == pytest.approx(two) and set(one) == {
        *("tpr@fpr=0.01", "tpr@fpr=0.001", "dir@far=0.01", "dir@far=0.001")
    }


def test_a_rate_above_the_recorded_one_is_refused() -> None:
    scores = open_set_scores(*made_set(5), largest_fpr=0.01)
    with pytest.raises(ValueError, match="call open_set_scores with a larger largest_fpr"):
        threshold_at_fpr(scores, 0.5)
    with pytest.raises(ValueError, match="largest_fpr"):
        open_set_scores(*made_set(5), largest_fpr=0.0)
