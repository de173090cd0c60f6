"""Exact retrieval evaluation in bounded memory: CMC, average precision, inverse negative penalty.

Nothing is sorted over the gallery. The measures depend on the ranks of a query's matches alone, and a rank is
a count: the gallery scores above the match's own, plus equal scores in earlier rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fedreid_pl.functional.retrieval_input import checked_features

_JUNK = -1  # the data layer's code, which this layer may not import
_BLOCK = 512  # gallery rows that share a threshold
_CPU_TILE = 1 << 21  # numbers that a comparison writes at once: they stay in the cache until they are summed
_GPU_TILE = 1 << 26  # enough to fill a GPU: 256 MiB
_EXACT_SUM = 1 << 24  # the most ones that add up exactly in float32


class RetrievalResults(NamedTuple):
    """One row per query, in the order of the queries.

    Attributes:
        first_hit: `[Q]` int64, rank of the first match, 1 is the top; the largest int64 where there is none.
        ap: `[Q]` float64, average precision: mean of the precisions at the hits.
        ap_trapezoid: `[Q]` float64, the same with each precision averaged with the one just before the hit.
        inp: `[Q]` float64, number of matches divided by the rank of the last of them.
        valid: `[Q]` bool, whether the query has a match at all; the other values are 0 where it has none.
    """

    first_hit: Tensor
    ap: Tensor
    ap_trapezoid: Tensor
    inp: Tensor
    valid: Tensor


@torch.no_grad()
def retrieval_results(
    query: Tensor,
    query_identities: Tensor,
    query_cameras: Tensor,
    gallery: Tensor,
    gallery_identities: Tensor,
    gallery_cameras: Tensor,
    chunk: int = 256,
) -> RetrievalResults:
    """Rank the gallery for every query by dot product and measure where the matches are.

    Removed for a query: gallery rows of its identity seen by its camera, and all rows of identity -1 (junk).
    Every other negative identity is a distractor: it stays and matches nobody. Of two rows with exactly the
    same score the earlier one ranks first. Half precision is compared in float32.

    Time is that of the matrix product plus a term in proportion to `Q * G * matches per query`. Memory above
    the features is a few times `chunk * G` numbers. No value depends on the chunk, except that a matrix
    product may round differently for another number of rows.

    Args:
        query: `[Q, D]` floating point, as compared: L2-normalised for cosine similarity.
        query_identities: `[Q]` integers >= 0.
        query_cameras: `[Q]` integers.
        gallery: `[G, D]` floating point.
        gallery_identities: `[G]` integers.
        gallery_cameras: `[G]` integers.
        chunk: queries per matrix product.

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
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    matches = _match(
        *(column.to(query.device) for column in columns),
        *(column.to(query.device) for column in (gallery_identities, gallery_cameras)),
    )
    junk = (gallery_identities.to(query.device) == _JUNK).nonzero().squeeze(1)

    first_hit = torch.full_like(matches.total, torch.iinfo(torch.int64).max)
    ap, ap_trapezoid, inp = torch.zeros(3, len(query), dtype=torch.float64, device=query.device)
    results = RetrievalResults(first_hit, ap, ap_trapezoid, inp, matches.total > 0)
    # Queries with as many matches side by side need the least padding; those without any need no product.
    order = matches.total.argsort(stable=True)
    order = order[int((matches.total == 0).sum()) :]
    if len(order) == 0:
        return results
    width = min(_BLOCK, len(gallery))
    blocks = -(-len(gallery) // width)
    buffer = query.new_empty(min(chunk, len(order)), blocks * width)
    buffer[:, len(gallery) :] = -torch.inf
    for part in order.split(chunk):
        scores = buffer[: len(part)]
        torch.mm(query[part], gallery.T, out=scores[:, : len(gallery)])  # autocast leaves `out` forms alone
        scores.index_fill_(1, junk, -torch.inf)
        scores[matches.removed(part)] = -torch.inf
        rows, count = matches.rows(part), matches.total[part]
        ranks = _ranks(scores.view(-1, blocks, width), rows, count)
        for column, values in zip(results[:4], _measures(ranks, count), strict=True):
            column[part] = values
    return results


def summarize(
    results: RetrievalResults, ranks: Sequence[int] = (1, 5, 10), keep_unmatched: bool = False
) -> dict[str, float]:
    """Means over queries: `rank{k}` for each of `ranks`, `mAP`, `mAP_trapezoid`, `mINP`, all in [0, 1].

    `queries` is the number of queries with a match. The others are left out, or count as 0 if
    `keep_unmatched`.

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
    summary = {f"rank{k}": int((results.first_hit[kept] <= k).sum()) / total for k in ranks}
    columns = {"mAP": results.ap, "mAP_trapezoid": results.ap_trapezoid, "mINP": results.inp}
    summary |= {name: float(column[kept].sum()) / total for name, column in columns.items()}
    return summary | {"queries": float(queries)}


class _Matches(NamedTuple):
    """Gallery rows sorted by identity, then camera: a query's rows are a range with a hole in it.

    The range holds its identity; the hole, of the query's own camera, is removed; the rest are its matches.
    """

    sorted_rows: Tensor  # [G]
    start: Tensor  # [Q] first place of the identity
    hole: Tensor  # [Q] first place of the identity's own camera
    hole_size: Tensor  # [Q]
    total: Tensor  # [Q] matches

    def rows(self, part: Tensor) -> Tensor:
        """Gallery rows of the matches, `[len(part), most matches]`; past a query's count, any row."""
        start, hole, hole_size = (column[part, None] for column in (self.start, self.hole, self.hole_size))
        width = int(self.total[part].max())
        place = start + torch.arange(width, device=start.device)
        place += hole_size * (place >= hole)
        return self.sorted_rows[place.clamp_(max=len(self.sorted_rows) - 1)]

    def removed(self, part: Tensor) -> tuple[Tensor, Tensor]:
        """Pairs (position in part, gallery row) of the same identity and camera."""
        size = self.hole_size[part]
        position = torch.arange(len(part), device=part.device).repeat_interleave(size)
        within = torch.arange(len(position), device=part.device) - (size.cumsum(0) - size)[position]
        return position, self.sorted_rows[self.hole[part][position] + within]


def _match(
    query_identities: Tensor, query_cameras: Tensor, gallery_identities: Tensor, gallery_cameras: Tensor
) -> _Matches:
    identities = torch.cat([query_identities, gallery_identities]).unique(return_inverse=True)[1]
    known_cameras, cameras = torch.cat([query_cameras, gallery_cameras]).unique(return_inverse=True)
    identities *= len(known_cameras)
    keys, queries = identities + cameras, len(query_identities)
    sorted_keys, sorted_rows = keys[queries:].sort(stable=True)
    start, end = (torch.searchsorted(sorted_keys, identities[:queries] + shift) for shift in (0, len(known_cameras)))
    hole, hole_end = (torch.searchsorted(sorted_keys, keys[:queries] + shift) for shift in (0, 1))
    return _Matches(sorted_rows, start, hole, hole_end - hole, end - start - (hole_end - hole))


def _ranks(scores: Tensor, rows: Tensor, count: Tensor) -> Tensor:
    """Ranks from 0 of the gallery rows `rows[i, :count[i]]` among `scores[i]`, ascending along each row.

    An earlier row goes first if its score is at least the match's, a later one if it is above it. So that one
    comparison settles both, blocks of rows before the match's own are compared with the next smaller number;
    within its own block, equal scores of earlier rows are added afterwards.

    Args:
        scores: `[q, B, W]`, the gallery rows in B blocks; -inf where removed.
        rows: `[q, p]`.
        count: `[q]`, ascending.
    """
    own, width = scores.flatten(1).gather(1, rows), scores.shape[2]
    ranks = _count_above(scores, own, rows // width, count)
    ranks += _count_equal_before(scores, own, rows // width, rows % width)
    used = torch.arange(rows.shape[1], device=rows.device) < count[:, None]
    return ranks.masked_fill_(~used, torch.iinfo(torch.int64).max).sort(1).values


def _count_above(scores: Tensor, own: Tensor, own_block: Tensor, count: Tensor) -> Tensor:
    """How many scores are above `own[i, j]`, or equal and in a block before `own_block[i, j]`, `[q, p]`.

    The comparison writes floats instead of booleans, which is several times faster to compute and to add up.
    """
    result = torch.zeros(own.shape, dtype=torch.int64, device=scores.device)
    blocks, width = scores.shape[1:]
    tile = _GPU_TILE if scores.is_cuda else _CPU_TILE
    some = max(1, min(blocks, min(tile, _EXACT_SUM) // width))  # blocks per tile
    step = max(1, tile // (some * width))  # matches per tile
    buffer = scores.new_empty(step * some * width)
    smaller = own.nextafter(own.new_tensor(-torch.inf))
    number = torch.arange(blocks, device=scores.device)
    counts = count.tolist()
    first = 0
    while first < len(counts):
        last = min(len(counts), first + max(1, step // counts[first]))
        last = min(last, first + max(1, step // counts[last - 1]))
        for left in range(0, counts[last - 1], step):
            cell = slice(first, last), slice(left, min(counts[last - 1], left + step)), None
            for block in range(0, blocks, some):
                part = slice(block, block + some)
                limit = own[cell].where(own_block[cell] <= number[part], smaller[cell])
                out = buffer[: limit.numel() * width].view(*limit.shape, width)
                torch.gt(scores[first:last, None, part], limit[..., None], out=out)
                result[cell[:2]] += out.flatten(2).sum(2).long()
        first = last
    return result


def _count_equal_before(scores: Tensor, own: Tensor, block: Tensor, place: Tensor) -> Tensor:
    """How many scores of block `block[i, j]` equal `own[i, j]` and stand before `place[i, j]`, `[q, p]`."""
    queries, blocks, width = scores.shape
    block = block + torch.arange(queries, device=block.device)[:, None] * blocks
    before = scores.new_ones(width, width).tril_(-1)  # [place, other place]
    step = min(own.numel(), max(1, (_GPU_TILE if scores.is_cuda else _CPU_TILE) // width))
    buffers = scores.new_empty(2, step, width)
    counts = torch.empty(own.numel(), dtype=torch.int64, device=own.device)
    columns = (column.flatten().split(step) for column in (block, own, place, counts))
    for these, value, at, out in zip(*columns, strict=True):
        equal, mask = buffers[:, : len(these)]
        torch.index_select(scores.view(-1, width), 0, these, out=equal)
        torch.index_select(before, 0, at, out=mask)
        torch.eq(equal, value[:, None], out=equal)
        out.copy_(equal.mul_(mask).sum(1))
    return counts.view(own.shape)


def _measures(ranks: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """First hit, AP, trapezoidal AP and INP from ascending ranks `[q, p]`; `count` `[q]` are used."""
    hits = torch.arange(ranks.shape[1], dtype=torch.float64, device=ranks.device)
    rank = ranks.double()
    precision = (hits + 1) / (rank + 1)
    before = torch.where(ranks == 0, 1.0, hits / rank)
    used = hits < count[:, None]
    last = ranks.gather(1, count[:, None] - 1).squeeze(1)
    # A running sum adds in order, so that padding cannot change the last bit of a value.
    ap, trapezoid = (
        values.where(used, 0.0).cumsum(1)[:, -1] / count for values in (precision, (before + precision) / 2)
    )
    return ranks[:, 0] + 1, ap, trapezoid, count / (last + 1).double()
