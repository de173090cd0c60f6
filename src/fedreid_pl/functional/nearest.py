"""The most similar rows of a gallery, exact and in bounded memory."""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK = 1 << 18  # largest number of gallery rows per matrix product
_LEAST = 1 << 10  # smallest number of gallery rows per matrix product
_CELLS = 1 << 24  # scores in memory at a time
_BLOCK = 256  # scores per block; the search first compares the maxima of the blocks


@torch.no_grad()
def nearest_rows(queries: Tensor, gallery: Tensor, k: int, allowed: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Returns scores and rows of the `k` gallery rows with the largest dot product, the best first.

    Equal scores are in the order of the rows. Beside the features and the result, about 64 MB of scores are in memory.

    Args:
        queries: `[Q, D]` floating point.
        gallery: `[G, D]` of the same dtype.
        k: number of rows per query. A query with fewer allowed rows gets fewer.
        allowed: `[G]` or `[Q, G]` bool, rows that may be returned; `None` allows all rows.

    Returns:
        Scores `[Q, min(k, G)]` and rows `[Q, min(k, G)]` int64. Places past the allowed rows have the score -inf and
        the row -1.

    >>> scores, rows = nearest_rows(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.8, 0.6], [0.6, 0.8]]), 2)
    >>> rows.tolist()
    [[1, 2]]
    """
    k = min(k, len(gallery))
    best = queries.new_full((len(queries), 0), -torch.inf)
    rows = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    chunk = min(_CHUNK, max(_LEAST, _CELLS // max(1, len(queries))))
    for start in range(0, len(gallery), chunk):
        part = gallery[start : start + chunk]
        scores = (part @ queries[0])[None] if len(queries) == 1 else queries @ part.T
        if allowed is not None:
            scores.masked_fill_(~allowed[..., start : start + len(part)], -torch.inf)
        found, place = _top(scores, min(k, len(part)))
        best, rows = torch.cat([best, found], 1), torch.cat([rows, place + start], 1)
        order = best.argsort(dim=1, descending=True, stable=True)[:, :k]
        best, rows = best.gather(1, order), rows.gather(1, order)
    return best, rows.masked_fill(best == -torch.inf, -1)


def _top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Returns the `k` largest scores of every row and their columns; of equal scores the first ones."""
    count = scores.shape[1]
    blocks = count // _BLOCK
    if blocks <= k:
        order = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
        return scores.gather(1, order), order
    # The k best scores are in the k blocks with the highest maxima; of equal maxima, the earlier block counts.
    tiles = scores[:, : blocks * _BLOCK].view(len(scores), blocks, _BLOCK)
    chosen = tiles.amax(2).argsort(dim=1, descending=True, stable=True)[:, :k].sort(1).values
    places = (chosen[..., None] * _BLOCK + torch.arange(_BLOCK, device=scores.device)).flatten(1)
    rest = torch.arange(blocks * _BLOCK, count, device=scores.device).expand(len(scores), -1)
    places = torch.cat([places, rest], 1)
    some = scores.gather(1, places)
    order = some.argsort(dim=1, descending=True, stable=True)[:, :k]
    return some.gather(1, order), places.gather(1, order)
