"""The CMC curve, and the first gallery images of single queries."""

from __future__ import annotations

import torch
from torch import Tensor

from fedreid_pl.functional.ranking import RetrievalResults
from fedreid_pl.functional.retrieval_input import checked_features

_JUNK = -1  # identity of junk images; the data layer defines it, and this layer may not import the data layer


def cmc_curve(results: RetrievalResults, length: int = 50, keep_unmatched: bool = False) -> Tensor:
    """Returns the CMC curve: the share of queries with a match up to rank 1, 2, ..., `[length]` float64.

    Queries without a match are left out; with `keep_unmatched` they count as failures. The first value is `rank1` of
    `summarize`.

    Raises:
        ValueError: if no query has a match and `keep_unmatched` is false.

    >>> one = torch.ones(4, dtype=torch.float64)
    >>> hits, valid = torch.tensor([1, 3, 1, 9]), torch.tensor([True, True, True, True])
    >>> cmc_curve(RetrievalResults(hits, one, one, one, valid), length=3).tolist()
    [0.5, 0.5, 0.75]
    """
    total = len(results.valid) if keep_unmatched else int(results.valid.sum())
    if total == 0:
        raise ValueError("no query has a match in the gallery: same identity, other camera")
    return results.hit_rates(length).sum(0) / total


@torch.no_grad()
def ranked_lists(
    query: Tensor,
    query_identities: Tensor,
    query_cameras: Tensor,
    gallery: Tensor,
    gallery_identities: Tensor,
    gallery_cameras: Tensor,
    length: int = 10,
    chunk: int = 256,
) -> tuple[Tensor, Tensor]:
    """Returns the first gallery rows of every query and their scores.

    Rows of the query's identity and camera and junk rows are removed. Of equal scores the earlier row is first.

    Args:
        query, gallery: `[Q, D]` and `[G, D]` floating point; L2-normalised features give cosine similarities.
        query_identities, query_cameras, gallery_identities, gallery_cameras: `[Q]` and `[G]` integers.
        length: gallery rows per query.
        chunk: queries per matrix product; memory is `chunk * G` numbers.

    Returns:
        Rows `[Q, length]` int64 and scores `[Q, length]` float32. Places past the end of a shorter list have row -1
        and score -inf.

    Raises:
        ValueError: under the conditions of `retrieval_results`, or if `length` is below 1.

    >>> query = torch.tensor([[1.0, 0.0]])
    >>> gallery = torch.tensor([[0.6, 0.8], [0.8, 0.6], [1.0, 0.0]])  # the last: same camera, removed
    >>> columns = torch.tensor([7]), torch.tensor([0])
    >>> ranked_lists(query, *columns, gallery, torch.tensor([7, 3, 7]), torch.tensor([1, 1, 0]), length=3)[0]
    tensor([[ 1,  0, -1]])
    """
    query, gallery = checked_features(
        query, query_identities, query_cameras, gallery, gallery_identities, gallery_cameras
    )
    if length < 1 or chunk < 1:
        raise ValueError(f"length and chunk must be at least 1, got {length} and {chunk}")
    identities, cameras, theirs, seen_by = (
        column.to(query.device) for column in (query_identities, query_cameras, gallery_identities, gallery_cameras)
    )
    rows = torch.full((len(query), length), -1, dtype=torch.int64, device=query.device)
    scores = torch.full((len(query), length), -torch.inf, device=query.device)
    junk = theirs == _JUNK
    for part in torch.arange(len(query), device=query.device).split(chunk):
        left = query[part] @ gallery.T
        same = (identities[part, None] == theirs) & (cameras[part, None] == seen_by)
        left.masked_fill_(same | junk, -torch.inf)
        for place in range(min(length, len(gallery))):
            value, row = left.max(1)  # of equal values, max gives the first
            rows[part, place] = row.where(value > -torch.inf, -1)
            scores[part, place] = value
            left.scatter_(1, row[:, None], -torch.inf)
    return rows, scores
