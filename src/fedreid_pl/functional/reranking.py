"""k-reciprocal re-ranking, exact and in bounded memory: no matrix over all pairs of images is stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from fedreid_pl.functional.ranking import RetrievalResults, Ties, results_by_scores
from fedreid_pl.functional.retrieval_input import checked_features

_JUNK = -1  # identity of junk images; the data layer defines it, and this layer may not import the data layer
_BLOCK = 64  # columns per block; the search first compares the maxima of the blocks
_PAIRS = 1 << 18  # numbers per step: few enough to stay in the processor's cache


class Sparse(NamedTuple):
    """A sparse matrix by rows: row i holds `values[start[i]:start[i + 1]]` in ascending `columns`."""

    start: Tensor  # [rows + 1] int64
    columns: Tensor  # [entries] int64
    values: Tensor  # [entries]


class KReciprocal:
    """Distances of queries to gallery images, re-ranked by k-reciprocal neighbours.

    Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding" (CVPR 2017): with `d` the squared
    Euclidean distance of two features divided by the largest one of its row, every image becomes a sparse vector `V`
    of weights `exp(-d)` over its expanded k-reciprocal neighbours (Eq. 5 and 7), normalised to sum 1 as in the
    authors' code and averaged over the `k2` nearest images (Eq. 11). The distance is
    `(1 - weight) * jaccard(V_q, V_g) + weight * d(q, g)` (Eq. 10 and 12).

    The same sparse vectors serve clustering: `jaccard` returns the distances.

    Beside the features, the memory is at most a few gigabytes for any number of images. The time is that of one product
    of all features with all features, plus a part proportional to the number of images.

    Args:
        query: `[Q, D]` floating point, L2-normalised.
        gallery: `[G, D]` floating point, L2-normalised, on the same device.
        k1: number of nearest neighbours of an image, 20 in the paper.
        k2: number of images over which a vector is averaged, 6 in the paper; 1 disables the averaging.
        weight: share of the original distance, 0.3 in the paper.
        chunk: rows per matrix product; it bounds the memory.

    Raises:
        ValueError: if `k1` or `k2` is below 1, `weight` is outside 0 to 1, or shapes do not fit.

    >>> query, gallery = torch.eye(3)[:1], torch.nn.functional.normalize(torch.tensor([[0.9, 0.1, 0], [0, 0.1, 0.9]]))
    >>> KReciprocal(query, gallery, k1=1, k2=1).distances(torch.tensor([0])).argmin().item()
    0
    """

    def __init__(
        self, query: Tensor, gallery: Tensor, k1: int = 20, k2: int = 6, weight: float = 0.3, chunk: int = 512
    ) -> None:
        if k1 < 1 or k2 < 1 or chunk < 1:
            raise ValueError(f"k1, k2 and chunk must be at least 1, got {k1}, {k2} and {chunk}")
        if not 0.0 <= weight <= 1.0:
            raise ValueError(f"weight must be from 0 to 1, got {weight}")
        if query.dim() != 2 or gallery.dim() != 2 or query.shape[1] != gallery.shape[1]:
            raise ValueError(f"features must be [Q, D] and [G, D], got {list(query.shape)} and {list(gallery.shape)}")
        dtype = torch.promote_types(query.dtype, torch.float32)
        self.features = torch.cat([query, gallery]).to(dtype)
        self.queries, self.weight, self.chunk = len(query), weight, chunk
        near, self.largest = _neighbours(self.features, max(k1 + 1, k2), chunk)
        vectors = self._vectors(near, k1)
        self.vectors = vectors if k2 == 1 else _averaged(vectors, near[:, :k2])
        self._gallery = _transposed(self.vectors, self.queries, len(self.features))

    def distances(self, rows: Tensor) -> Tensor:
        """Returns re-ranked distances `[len(rows), G]` of queries `rows` (int64) to the gallery; smaller is nearer."""
        scores = self.features[rows] @ self.features[self.queries :].T
        original = (2 - 2 * scores).clamp_(min=0).div_(self.largest[rows, None])
        return self.jaccard(rows).mul_(1 - self.weight).add_(original, alpha=self.weight)

    def jaccard(self, rows: Tensor) -> Tensor:
        """Returns Jaccard distances `[len(rows), G]` of the vectors of queries `rows` (int64) to gallery vectors."""
        overlap = self.features.new_zeros(len(rows), len(self.features) - self.queries)
        for row, column, value in _entries_of(self.vectors, rows):
            for entry, place in _ranges(self._gallery.start[column], self._gallery.start[column + 1]):
                least = torch.minimum(value[entry], self._gallery.values[place])
                flat = row[entry] * overlap.shape[1] + self._gallery.columns[place]
                overlap.view(-1).index_add_(0, flat, least)
        return 1 - overlap / (2 - overlap)

    def _vectors(self, near: Tensor, k1: int) -> Sparse:
        """Returns the weights of every image over its expanded k-reciprocal neighbours."""
        near = near.int()  # int32 needs half the memory in the comparisons
        near, half = near[:, : k1 + 1], near[:, : round(k1 / 2) + 1]
        mutual, mutual_half = _mutual(near, self.chunk), _mutual(half, self.chunk)
        parts = []
        none = len(self.features)
        step = max(1, _PAIRS // (near.shape[1] * half.shape[1]))
        for start in range(0, len(near), step):
            own, kept = near[start : start + step], mutual[start : start + step]
            theirs, theirs_kept = half[own], mutual_half[own] & kept[..., None]  # [n, k1 + 1, half]
            known = _found(theirs.flatten(1), torch.where(kept, own, none)).view_as(theirs) & theirs_kept
            taken = known.sum(-1) > 2 / 3 * theirs_kept.sum(-1)
            members = torch.cat([own, theirs.flatten(1)], 1)
            valid = torch.cat([kept, (theirs_kept & taken[..., None]).flatten(1)], 1)
            members = torch.where(valid, members, none).sort(1).values
            first = torch.ones_like(members, dtype=torch.bool)
            first[:, 1:] = members[:, 1:] != members[:, :-1]
            row, place = (first & (members < none)).nonzero(as_tuple=True)
            parts.append((row + start, members[row, place]))
        rows, columns = (torch.cat(part) for part in zip(*parts, strict=True))
        step = max(1, _PAIRS // self.features.shape[1])
        pieces = zip(rows.split(step), columns.split(step), strict=True)
        values = torch.cat([self._affinity(row, column) for row, column in pieces])
        total = values.new_zeros(len(self.features)).index_add_(0, rows, values)
        return Sparse(_starts(rows, len(self.features)), columns, values / total[rows])

    def _affinity(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Returns `exp(-d)` of pairs of images."""
        scores = (self.features[rows] * self.features[columns]).sum(1)
        return torch.exp(-(2 - 2 * scores).clamp_(min=0) / self.largest[rows])


@torch.no_grad()
def reranked_results(
    query: Tensor,
    query_identities: Tensor,
    query_cameras: Tensor,
    gallery: Tensor,
    gallery_identities: Tensor,
    gallery_cameras: Tensor,
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
    chunk: int = 256,
    ties: Ties = "expected",
) -> RetrievalResults:
    """Ranks the gallery for every query by `KReciprocal` and returns the measures of every query.

    The measures are those of `fedreid_pl.functional.ranking.retrieval_results`. Junk (identity -1) is removed from the
    gallery first. As in the published code, distractors and rows of the query's own person and camera are used as
    neighbours. Rows of the query's own person and camera are then left out of the ranking as usual. Distances that
    differ by at most 1e-6 are equal.

    Raises:
        ValueError: under the conditions of `retrieval_results` and `KReciprocal`.
    """
    columns = (query_identities, query_cameras)
    query, gallery = checked_features(query, *columns, gallery, gallery_identities, gallery_cameras)
    kept = gallery_identities != _JUNK
    found = KReciprocal(query, gallery[kept.to(gallery.device)], k1, k2, weight)
    return results_by_scores(
        lambda rows: found.distances(rows).neg_(),
        query_identities.to(query.device),
        query_cameras.to(query.device),
        gallery_identities[kept].to(query.device),
        gallery_cameras[kept.to(gallery_cameras.device)].to(query.device),
        1e-6,
        chunk,
        ties,
    )


def _neighbours(features: Tensor, count: int, chunk: int) -> tuple[Tensor, Tensor]:
    """Returns rows `[N, count]` of the most similar images of each image, itself included, and its largest distance."""
    images = len(features)
    count = min(count, images)
    blocks = -(-images // _BLOCK)
    near = torch.empty(images, count, dtype=torch.int64, device=features.device)
    largest = features.new_empty(images)
    buffer = features.new_empty(min(chunk, images), blocks * _BLOCK)
    for start in range(0, images, chunk):
        part = features[start : start + chunk]
        scores = buffer[: len(part)]
        torch.mm(part, features.T, out=scores[:, :images])
        largest[start : start + chunk] = (2 - 2 * scores[:, :images].amin(1)).clamp_(min=torch.finfo(part.dtype).tiny)
        own = torch.arange(len(part), device=part.device)
        scores[own, own + start] = torch.inf  # an image is nearest to itself, independent of rounding
        scores[:, images:] = -torch.inf
        tiles = scores.view(len(part), blocks, _BLOCK)
        best = tiles.amax(2).topk(min(count, blocks), sorted=False).indices  # blocks with the row's best scores
        some = tiles.gather(1, best[..., None].expand(-1, -1, _BLOCK)).flatten(1)
        places = some.topk(count).indices
        near[start : start + chunk] = best.gather(1, places // _BLOCK) * _BLOCK + places % _BLOCK
    return near, largest


def _mutual(near: Tensor, chunk: int) -> Tensor:
    """Returns whether image i is among the neighbours of its neighbour `near[i, a]`, `[N, k]` bool."""
    result = torch.empty_like(near, dtype=torch.bool)
    for start in range(0, len(near), chunk):
        part = near[start : start + chunk]
        own = torch.arange(start, start + len(part), device=near.device)
        result[start : start + chunk] = (near[part] == own[:, None, None]).any(-1)
    return result


def _found(values: Tensor, among: Tensor) -> Tensor:
    """Returns whether `values[i, j]` is one of `among[i]`, `[n, m]` bool."""
    among = among.sort(1).values
    place = torch.searchsorted(among, values).clamp_(max=among.shape[1] - 1)
    return among.gather(1, place) == values


def _averaged(vectors: Sparse, near: Tensor) -> Sparse:
    """Returns for each image the mean of the vectors of its nearest images."""
    images, wanted = near.shape
    size = int(vectors.start[1:].sub(vectors.start[:-1]).float().mean().ceil()) * wanted
    parts = []
    step = max(1, _PAIRS // max(1, size))
    for start in range(0, images, step):
        part = near[start : start + step]
        keys, values = [], []
        for row, column, value in _entries_of(vectors, part.flatten()):
            keys.append(row // wanted * images + column)
            values.append(value)
        key, place = torch.cat(keys).unique(return_inverse=True)
        total = vectors.values.new_zeros(len(key)).index_add_(0, place, torch.cat(values))
        parts.append((key // images + start, key % images, total / wanted))
    rows, columns, means = (torch.cat(part) for part in zip(*parts, strict=True))
    return Sparse(_starts(rows, images), columns, means)


def _transposed(vectors: Sparse, first: int, last: int) -> Sparse:
    """Returns the transpose of rows `first` to `last`: every column's entries, with rows counted from `first`."""
    begin, end = vectors.start[first], vectors.start[last]
    columns, values = vectors.columns[begin:end], vectors.values[begin:end]
    rows = torch.repeat_interleave(vectors.start[first : last + 1].diff())
    order = columns.argsort(stable=True)
    return Sparse(_starts(columns[order], len(vectors.start) - 1), rows[order], values[order])


def _starts(rows: Tensor, count: int) -> Tensor:
    """Returns the position in ascending `rows` at which each of `count` rows begins, and the end of the last row."""
    return torch.cat([rows.new_zeros(1), torch.bincount(rows, minlength=count).cumsum(0)])


def _entries_of(vectors: Sparse, rows: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yields position in `rows`, column and value of all entries of these rows, in pieces."""
    for row, place in _ranges(vectors.start[rows], vectors.start[rows + 1]):
        yield row, vectors.columns[place], vectors.values[place]


def _ranges(start: Tensor, end: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields i and every place of the ranges `start[i]` to `end[i]`, in pieces of a bounded number of places."""
    sizes = end - start
    total = sizes.cumsum(0)
    begin = 0
    while begin < len(sizes):
        done = int(total[begin - 1]) if begin else 0
        stop = max(begin + 1, int(torch.searchsorted(total, done + _PAIRS, right=True)))
        size = sizes[begin:stop]
        owner = torch.arange(begin, min(stop, len(sizes)), device=start.device).repeat_interleave(size)
        within = torch.arange(len(owner), device=start.device) + done - (total - sizes)[owner]
        yield owner, start[owner] + within
        begin = stop
