"""Exact retrieval evaluation in bounded memory: CMC, average precision, inverse negative penalty.

The measures depend only on the ranks of a query's matches. A rank is one plus the number of higher gallery scores; a
search in the query's sorted scores finds it. For images with equal scores the measures are expectations over all
orders.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedreid_pl.functional.query_matches import QueryMatches, query_matches
from fedreid_pl.functional.retrieval_input import checked_features, in_canonical_order
from fedreid_pl.functional.tie_groups import TieGroups, average_precision, hit_rates, inverse_penalty

_JUNK = -1  # identity of junk images; the data layer defines it, and this layer may not import the data layer
_TILE = 1 << 22  # comparisons in memory at a time, when equal scores are put in the order of their rows

Ties = Literal["expected", "order"]


class RetrievalResults(NamedTuple):
    """Retrieval measures of every query, one row per query, in the order of the queries.

    Attributes:
        first_hit: `[Q]` int64, rank of the first match, counted from 1. If other images have the same score, the best
            of their ranks. The largest int64 if there is no match.
        ap: `[Q]` float64, average precision: mean of the precisions at the hits.
        ap_trapezoid: `[Q]` float64, average precision with each precision averaged with the one just before the hit.
        inp: `[Q]` float64, number of matches divided by the rank of the last match.
        valid: `[Q]` bool, whether the query has a match. Without a match, `ap`, `ap_trapezoid` and `inp` are 0.
        tied: `[Q]` int64, gallery images with the score of the first match; `None` if no scores are equal.
        tied_matches: `[Q]` int64, number of matches among the `tied` images; `None` if no scores are equal.
    """

    first_hit: Tensor
    ap: Tensor
    ap_trapezoid: Tensor
    inp: Tensor
    valid: Tensor
    tied: Tensor | None = None
    tied_matches: Tensor | None = None

    def hit_rates(self, most: int) -> Tensor:
        """Returns the probability that the first match has rank 1, ..., `most` or better, `[Q, most]` float64."""
        one = torch.ones_like(self.first_hit)
        size = one if self.tied is None else self.tied
        matches = one if self.tied_matches is None else self.tied_matches
        return hit_rates(self.first_hit - 1, size, matches * self.valid, most)

    def tied_first(self) -> Tensor:
        """Returns whether a gallery image of another person has the score of the first match, `[Q]` bool."""
        if self.tied is None or self.tied_matches is None:
            return torch.zeros_like(self.valid)
        return self.valid & (self.tied > self.tied_matches)


@torch.no_grad()
def retrieval_results(
    query: Tensor,
    query_identities: Tensor,
    query_cameras: Tensor,
    gallery: Tensor,
    gallery_identities: Tensor,
    gallery_cameras: Tensor,
    chunk: int = 256,
    ties: Ties = "expected",
) -> RetrievalResults:
    """Ranks the gallery for every query by dot product and returns the measures of every query.

    For each query, gallery rows of its identity and camera are removed, and all rows of identity -1 (junk). Every other
    negative identity is a distractor: it stays in the gallery and matches no query. Half precision is compared in
    float32.

    Two scores are equal if they differ by at most 4 units of rounding of the largest score that the query can have (the
    product of the norms): 5e-7 of this score in float32, 9e-16 in float64. Matches within twice this distance share a
    place.

    With `ties="expected"` every value is the exact expectation over all orders of equal scores. No value depends on the
    order of the gallery or of the queries: both are sorted by their content before the matrix product. With
    `ties="order"`, as in torchreid, only scores with the same bits are equal, and the earlier row is first. The result
    of a model that gives every image the same feature then depends on the order of the gallery.

    The time is that of the matrix product and of sorting `Q * G` scores. Beside the features, the memory is a few times
    `chunk * G` numbers, and with `ties="expected"` a copy of the gallery's features. The chunk changes no value, except
    that a matrix product may round differently for another number of rows.

    Args:
        query: `[Q, D]` floating point; L2-normalised for cosine similarity.
        query_identities: `[Q]` integers >= 0.
        query_cameras: `[Q]` integers.
        gallery: `[G, D]` floating point.
        gallery_identities: `[G]` integers.
        gallery_cameras: `[G]` integers.
        chunk: queries per matrix product.
        ties: `"expected"` or `"order"`, the treatment of equal scores.

    Raises:
        ValueError: if there is no query or no gallery row, shapes or dtypes do not fit, a query's identity is
            negative, or a feature is NaN, infinite or so large that scores would overflow.

    >>> query = torch.tensor([[1.0, 0.0]])
    >>> gallery = torch.tensor([[0.6, 0.8], [0.8, 0.6], [1.0, 0.0]])  # the last: same camera, removed
    >>> results = retrieval_results(
    ...     *(query, torch.tensor([7]), torch.tensor([0])),
    ...     *(gallery, torch.tensor([7, 3, 7]), torch.tensor([1, 1, 0])),
    ... )
    >>> results.first_hit.item(), results.ap.item(), results.ap_trapezoid.item()
    (2, 0.5, 0.25)
    """
    columns = (query_identities, query_cameras)
    query, gallery = checked_features(query, *columns, gallery, gallery_identities, gallery_cameras)
    if chunk < 1 or ties not in ("expected", "order"):
        raise ValueError(f"chunk must be at least 1 and ties 'expected' or 'order', got {chunk} and {ties!r}")
    identities, cameras, theirs, seen_by = (
        column.to(query.device) for column in (*columns, gallery_identities, gallery_cameras)
    )
    order = torch.arange(len(query), device=query.device)
    if ties == "expected":
        order = in_canonical_order(query, identities, cameras)
        rows = in_canonical_order(gallery, theirs, seen_by)
        gallery, theirs, seen_by = gallery[rows], theirs[rows], seen_by[rows]
    return _results(
        lambda part, out: torch.mm(query[part], gallery.T, out=out),  # autocast does not change calls with `out`
        score_tolerance(query, gallery),
        order,
        (identities, cameras, theirs, seen_by),
        query.new_empty(min(chunk, len(query)), len(gallery)),
        ties,
    )


@torch.no_grad()
def results_by_scores(
    scores: Callable[[Tensor], Tensor],
    query_identities: Tensor,
    query_cameras: Tensor,
    gallery_identities: Tensor,
    gallery_cameras: Tensor,
    tolerance: float,
    chunk: int = 256,
    ties: Ties = "expected",
) -> RetrievalResults:
    """Returns the measures of every query from given scores, for example negated re-ranked distances.

    The measures are those of `retrieval_results`.

    Args:
        scores: function that takes query rows `[n]` int64 and returns their scores `[n, G]` floating point; a larger
            score means more similar.
        query_identities, query_cameras, gallery_identities, gallery_cameras, chunk, ties: as for `retrieval_results`,
            all on the device of the scores.
        tolerance: two scores that differ by at most this number are equal.

    >>> scores = torch.tensor([[0.1, 0.9, 0.5]])
    >>> one = torch.tensor([7]), torch.tensor([0]), torch.tensor([7, 3, 7]), torch.tensor([1, 1, 1])
    >>> results_by_scores(lambda rows: scores[rows], *one, tolerance=1e-6).first_hit.item()
    2
    """
    order = torch.arange(len(query_identities), device=query_identities.device)
    some = scores(order[:1])
    return _results(
        lambda part, out: out.copy_(scores(part)),
        some.new_full((len(order),), tolerance),
        order,
        (query_identities, query_cameras, gallery_identities, gallery_cameras),
        some.new_empty(min(chunk, len(order)), len(gallery_identities)),
        ties,
    )


def _results(
    fill: Callable[[Tensor, Tensor], object],
    tolerance: Tensor,
    order: Tensor,
    columns: tuple[Tensor, Tensor, Tensor, Tensor],
    buffer: Tensor,
    ties: Ties,
) -> RetrievalResults:
    """Returns the measures; `fill(rows, out)` writes the scores of query rows into a part of `buffer` `[chunk, G]`."""
    matches = query_matches(*columns)
    results = _no_results(matches)
    # Chunks of queries with similar numbers of matches need little padding. Queries without a match are skipped.
    order = order[matches.total[order].argsort(stable=True)]
    order = order[int((matches.total == 0).sum()) :]
    junk = (columns[2] == _JUNK).nonzero().squeeze(1)
    for part in order.split(len(buffer)) if len(order) else ():
        scores = buffer[: len(part)]
        fill(part, scores)
        scores.index_fill_(1, junk, -torch.inf)
        scores[matches.removed(part)] = -torch.inf
        rows, count = matches.rows(part), matches.total[part]
        if ties == "expected":
            groups = _groups(scores, rows, count, tolerance[part, None])
        else:
            groups = _in_row_order(scores, rows, count)
        results.first_hit[part] = groups.above[:, 0] + 1
        results.ap[part], results.ap_trapezoid[part] = average_precision(groups)
        results.inp[part] = inverse_penalty(groups)
        assert results.tied is not None and results.tied_matches is not None
        results.tied[part], results.tied_matches[part] = groups.size[:, 0], groups.matches[:, 0]
    return results


def score_tolerance(query: Tensor, gallery: Tensor) -> Tensor:
    """Returns the largest difference of two equal scores of each query, `[Q]`: 4 units of rounding."""
    return 4 * torch.finfo(query.dtype).eps * query.norm(dim=1) * gallery.norm(dim=1).max()


def summarize(
    results: RetrievalResults, ranks: Sequence[int] = (1, 5, 10), keep_unmatched: bool = False
) -> dict[str, float]:
    """Returns means over queries: `rank{k}` for each of `ranks`, `mAP`, `mAP_trapezoid`, `mINP`, all in [0, 1].

    The dict also has `queries`, the number of queries with a match. Queries without a match are left out of the means;
    with `keep_unmatched` they count as 0.

    Raises:
        ValueError: if no query has a match and `keep_unmatched` is false.

    >>> one = torch.ones(2, dtype=torch.float64)
    >>> results = RetrievalResults(torch.tensor([1, 7]), one, one / 2, one, torch.tensor([True, True]))
    >>> summarize(results, ranks=(1,))
    {'rank1': 0.5, 'mAP': 1.0, 'mAP_trapezoid': 0.5, 'mINP': 1.0, 'queries': 2.0}
    """
    queries = int(results.valid.sum())
    total = len(results.valid) if keep_unmatched else queries
    if total == 0:
        raise ValueError("no query has a match in the gallery: same identity, other camera")
    kept = results.valid
    rates = results.hit_rates(max(ranks, default=1))[kept].sum(0)
    summary = {f"rank{k}": float(rates[k - 1]) / total for k in ranks}
    columns = {"mAP": results.ap, "mAP_trapezoid": results.ap_trapezoid, "mINP": results.inp}
    summary |= {name: float(column[kept].sum()) / total for name, column in columns.items()}
    return summary | {"queries": float(queries)}


def _no_results(matches: QueryMatches) -> RetrievalResults:
    first_hit = torch.full_like(matches.total, torch.iinfo(torch.int64).max)
    ap, ap_trapezoid, inp = torch.zeros(3, len(first_hit), dtype=torch.float64, device=first_hit.device)
    tied, tied_matches = torch.zeros_like(first_hit), torch.zeros_like(first_hit)
    return RetrievalResults(first_hit, ap, ap_trapezoid, inp, matches.total > 0, tied, tied_matches)


def _groups(scores: Tensor, rows: Tensor, count: Tensor, tolerance: Tensor) -> TieGroups:
    """Returns the groups of equal scores of the matches `rows[i, :count[i]]`; sorts `scores` `[q, G]` in place.

    Matches whose scores differ by at most twice the tolerance share a group. A group extends by the tolerance beyond
    the scores of its first and last match, so that groups do not overlap.
    """
    used = torch.arange(rows.shape[1], device=rows.device) < count[:, None]
    own = scores.gather(1, rows).masked_fill_(~used, -torch.inf).sort(1, descending=True).values
    ascending = _sorted(scores)
    apart = own[:, :-1] - own[:, 1:] > 2 * tolerance
    number = torch.cat([torch.zeros_like(count[:, None]), apart.long().cumsum(1)], 1)  # NaN at the padding: not apart
    matches = torch.zeros_like(number).scatter_add_(1, number, used.long())
    kept = own.masked_fill(~used, torch.inf)
    first = torch.full_like(own, -torch.inf).scatter_reduce_(1, number, own, "amax")
    last = torch.full_like(own, torch.inf).scatter_reduce_(1, number, kept, "amin")
    above = scores.shape[1] - torch.searchsorted(ascending, first + tolerance, right=True)
    reach = scores.shape[1] - torch.searchsorted(ascending, last - tolerance)
    above[:, 1:] = above[:, 1:].maximum(reach[:, :-1])  # against rounding of the bounds
    empty = matches == 0
    return TieGroups(above.masked_fill_(empty, 0), (reach - above).masked_fill_(empty, 0), matches)


def _in_row_order(scores: Tensor, rows: Tensor, count: Tensor) -> TieGroups:
    """Returns groups of one match each: of equal scores the earlier row is first."""
    used = torch.arange(rows.shape[1], device=rows.device) < count[:, None]
    own = scores.gather(1, rows)
    ascending = _sorted(scores.clone())
    above = scores.shape[1] - torch.searchsorted(ascending, own, right=True)
    equal = scores.shape[1] - torch.searchsorted(ascending, own) - above
    place = torch.arange(scores.shape[1], device=rows.device)
    for pairs in ((equal > 1) & used).nonzero().split(max(1, _TILE // scores.shape[1])):
        query, column = pairs.unbind(1)
        before = place < rows[query, column, None]
        above[query, column] += ((scores[query] == own[query, column, None]) & before).sum(1)
    above = above.masked_fill_(~used, torch.iinfo(torch.int64).max).sort(1).values.masked_fill_(~used, 0)
    return TieGroups(above, used.long(), used.long())


def _sorted(scores: Tensor) -> Tensor:
    """Returns the scores in ascending order along each row; in place on the CPU, where NumPy sorts much faster."""
    if scores.device.type != "cpu":
        return scores.sort(1).values
    threads = torch.get_num_threads()
    if threads == 1:
        scores.numpy().sort(axis=1)
        return scores
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda part: part.sort(axis=1), np.array_split(scores.numpy(), threads)))
    return scores
