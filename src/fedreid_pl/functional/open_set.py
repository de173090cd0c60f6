"""Open-set retrieval: the person of a query may be missing from the gallery."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fedreid_pl.functional.retrieval_input import checked_features

_JUNK = -1  # identity of junk images; the data layer defines it, and this layer may not import the data layer

RATES = (1e-2, 1e-3)
"""False positive rates (pairs) and false alarm rates (searches) at which a model is evaluated."""


class OpenSetScores(NamedTuple):
    """Scores of genuine and impostor pairs, from which thresholds and error rates are computed.

    Attributes:
        genuine: `[P]` scores of all pairs of a query and a gallery image of the same person in another camera.
        impostor: `[M]` the largest scores of pairs of different persons, in descending order.
        impostor_pairs: number of all pairs of different persons.
        best_genuine: `[Q]` highest score of a gallery image of the query's person; -inf if there is none.
        best_impostor: `[Q]` highest score of a gallery image of another person; -inf if there is none.
    """

    genuine: Tensor
    impostor: Tensor
    impostor_pairs: int
    best_genuine: Tensor
    best_impostor: Tensor


@torch.no_grad()
def open_set_scores(
    query: Tensor,
    query_identities: Tensor,
    query_cameras: Tensor,
    gallery: Tensor,
    gallery_identities: Tensor,
    gallery_cameras: Tensor,
    largest_fpr: float = 1e-2,
    chunk: int = 256,
) -> OpenSetScores:
    """Returns the scores for open-set measures, computed in bounded memory.

    Gallery rows of the query's person and camera and junk (identity -1) are left out. Distractors count as other
    persons.

    Args:
        query, query_identities, query_cameras, gallery, gallery_identities, gallery_cameras: as for
            `fedreid_pl.functional.ranking.retrieval_results`.
        largest_fpr: the highest false positive rate that the caller evaluates; only this share of the impostor scores,
            the largest ones, is returned.
        chunk: queries per matrix product.

    Raises:
        ValueError: if shapes or dtypes do not fit, or `largest_fpr` is not between 0 and 1.
    """
    if not 0 < largest_fpr <= 1:
        raise ValueError(f"largest_fpr must be above 0 and at most 1, got {largest_fpr}")
    columns = (query_identities, query_cameras)
    query, gallery = checked_features(query, *columns, gallery, gallery_identities, gallery_cameras)
    most = max(1, int(largest_fpr * len(query) * len(gallery)) + 1)
    junk = gallery_identities == _JUNK
    genuine, tail, pairs = [], query.new_empty(0), 0
    bests: tuple[list[Tensor], list[Tensor]] = ([], [])
    for start in range(0, len(query), chunk):
        part = slice(start, start + chunk)
        scores = query[part] @ gallery.T
        same = query_identities[part, None] == gallery_identities
        hidden = junk | (same & (query_cameras[part, None] == gallery_cameras))
        match, other = same & ~hidden, ~same & ~hidden
        for best, mask in zip(bests, (match, other), strict=True):
            best.append(scores.masked_fill(~mask, -torch.inf).amax(1))
        genuine.append(scores[match])
        pairs += int(other.sum())
        found = scores[other & (scores >= tail[-1])] if len(tail) == most else scores[other]
        tail = torch.cat([tail, found]).topk(min(most, len(tail) + len(found))).values
    return OpenSetScores(torch.cat(genuine), tail, pairs, *(torch.cat(best) for best in bests))


def threshold_at_fpr(scores: OpenSetScores, fpr: float) -> float:
    """Returns the lowest threshold at which at most the share `fpr` of the impostor pairs is accepted.

    A pair is accepted if its score is above the threshold.

    Raises:
        ValueError: if `scores` has too few impostor scores for this rate.
    """
    allowed = int(fpr * scores.impostor_pairs)
    if allowed >= scores.impostor_pairs:
        return -torch.inf
    if allowed >= len(scores.impostor):
        raise ValueError(f"fpr={fpr} is too high for these scores: call open_set_scores with a larger largest_fpr")
    return float(scores.impostor[allowed])


def tpr_at_fpr(scores: OpenSetScores, fpr: float) -> float:
    """Returns the share of genuine pairs that are accepted at `threshold_at_fpr`; NaN if there is no genuine pair.

    >>> scores = OpenSetScores(torch.tensor([0.9, 0.4]), torch.tensor([0.5, 0.3]), 2, torch.empty(0), torch.empty(0))
    >>> tpr_at_fpr(scores, 0.0), tpr_at_fpr(scores, 0.5)
    (0.5, 1.0)
    """
    return float((scores.genuine > threshold_at_fpr(scores, fpr)).float().mean())


def threshold_at_far(scores: OpenSetScores, far: float) -> float:
    """Returns the lowest threshold at which at most the share `far` of absent persons is reported as found.

    Every query serves as an absent person: its person's images are removed from the gallery. The query is reported as
    found if the best remaining score is above the threshold.
    """
    order = scores.best_impostor.sort(descending=True).values
    allowed = int(far * len(order))
    return -torch.inf if allowed >= len(order) else float(order[allowed])


def false_alarms(scores: OpenSetScores, threshold: float) -> float:
    """Returns the share of absent persons that are reported as found at a threshold, see `threshold_at_far`."""
    return float((scores.best_impostor > threshold).float().mean())


def identified(scores: OpenSetScores, threshold: float) -> float:
    """Returns the detection and identification rate (DIR) at a threshold.

    Of the queries whose person is in the gallery, the share whose best match shows this person and has a score above
    the threshold (Grother and Ngan, NIST IR 8009, 2014: rank 1); NaN if there is no such query.
    """
    there = scores.best_genuine > -torch.inf
    hit = (scores.best_genuine > scores.best_impostor) & (scores.best_genuine > threshold)
    return float(hit[there].float().mean())


def without_pairs(best_genuine: Tensor, best_impostor: Tensor) -> OpenSetScores:
    """Returns `OpenSetScores` without pairs, for `threshold_at_far`, `false_alarms` and `identified`.

    Args:
        best_genuine, best_impostor: `[Q]`, see `OpenSetScores`.
    """
    none = best_genuine.new_empty(0)
    return OpenSetScores(none, none, 0, best_genuine, best_impostor)


def open_set_summary(scores: OpenSetScores, rates: Sequence[float] = RATES) -> dict[str, float]:
    """Returns `tpr@fpr=RATE` and `dir@far=RATE` for every rate, in [0, 1]; NaN if no pair or query counts."""
    pairs = {f"tpr@fpr={rate:g}": tpr_at_fpr(scores, rate) for rate in rates}
    return pairs | {f"dir@far={rate:g}": identified(scores, threshold_at_far(scores, rate)) for rate in rates}
