"""Single-gallery-shot CMC: the gallery holds one random image of every person, and the draw is repeated.

This protocol is customary for small data sets (PRID2011, CUHK01, VIPeR, 3DPeS, i-LIDS, GRID), because a person with
many gallery images would be easier to find than a person with few. The published evaluations draw ten galleries per
query.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fedreid_pl.functional.ranking import Ties, score_tolerance
from fedreid_pl.functional.retrieval_input import checked_features, in_canonical_order

_JUNK = -1  # identity of junk images; the data layer defines it, and this layer may not import the data layer
_TILE = 1 << 21  # drawn images that are compared at a time


@torch.no_grad()
def single_shot_cmc(
    query: Tensor,
    query_identities: Tensor,
    query_cameras: Tensor,
    gallery: Tensor,
    gallery_identities: Tensor,
    gallery_cameras: Tensor,
    generator: torch.Generator,
    repeats: int = 10,
    ranks: Sequence[int] = (1, 5, 10),
    chunk: int = 256,
    ties: Ties = "expected",
) -> Tensor:
    """Returns the share of `repeats` random galleries in which each query's match is among the first k.

    A random gallery has one image of every person, drawn with equal probability. Images of the query's own person and
    camera are removed, so the image of this person is from another camera. Junk (-1) is removed. All images of
    distractors (any other negative identity) stay, because one distractor code stands for many persons. Scores are
    equal under the conditions of `retrieval_results`, and every order of equal scores has the same probability. With
    `ties="order"` the earlier row ranks first.

    The function draws one uniform float32 for every query that has a match, every repeat and every person >= 0 of the
    gallery, in this order (persons ascending). `floor(number * n)` is the position of the drawn image among the
    person's n images. These images are sorted by content, not by row (`ties="order"`: by row). The draws do not depend
    on the chunk. Beside the features, the memory is a few times `chunk * G` numbers.

    Args:
        query: `[Q, D]` floating point; L2-normalised for cosine similarity.
        query_identities: `[Q]` integers >= 0.
        query_cameras: `[Q]` integers.
        gallery: `[G, D]` floating point.
        gallery_identities: `[G]` integers.
        gallery_cameras: `[G]` integers.
        generator: generator of the draws, on the CPU.
        repeats: random galleries per query.
        ranks: the values of k.
        chunk: queries per matrix product.
        ties: `"expected"` or `"order"`, the treatment of equal scores.

    Returns:
        `[Q, len(ranks)]` float64 in [0, 1]; 0 for a query without a match.

    Raises:
        ValueError: if `checked_features` rejects the input, or `repeats`, a rank or `chunk` is below 1.

    >>> query = torch.tensor([[1.0, 0.0]])
    >>> gallery = torch.tensor([[0.8, 0.6], [0.6, 0.8], [0.0, 1.0]])
    >>> single_shot_cmc(
    ...     *(query, torch.tensor([7]), torch.tensor([0])),
    ...     *(gallery, torch.tensor([7, 3, 3]), torch.tensor([1, 1, 1])),
    ...     generator=torch.Generator(), ranks=(1,),
    ... )
    tensor([[1.]], dtype=torch.float64)
    """
    columns = (query_identities, query_cameras)
    query, gallery = checked_features(query, *columns, gallery, gallery_identities, gallery_cameras)
    if repeats < 1 or chunk < 1 or any(k < 1 for k in ranks):
        raise ValueError(f"repeats, ranks and chunk must be at least 1, got {repeats}, {tuple(ranks)} and {chunk}")
    device = query.device
    query_identities, query_cameras = (column.to(device) for column in columns)
    gallery_identities, gallery_cameras = gallery_identities.to(device), gallery_cameras.to(device)
    tolerance = torch.zeros(len(query), dtype=query.dtype, device=device)
    if ties == "expected":
        rows = in_canonical_order(gallery, gallery_identities, gallery_cameras)
        gallery, gallery_identities, gallery_cameras = gallery[rows], gallery_identities[rows], gallery_cameras[rows]
        tolerance = score_tolerance(query, gallery)

    known = (gallery_identities >= 0).nonzero().squeeze(1)
    by_person = known[gallery_identities[known].argsort(stable=True)]  # gallery rows, person after person
    persons, images = gallery_identities[known].unique(return_counts=True)
    first = images.cumsum(0) - images
    distractors = (gallery_identities < _JUNK).nonzero().squeeze(1)

    hits = torch.zeros(len(query), len(ranks), dtype=torch.float64, device=device)
    step = max(1, min(chunk, _TILE // (repeats * max(1, len(persons) + len(distractors)))))
    buffer = query.new_empty(min(step, len(query)), len(gallery))
    limits = torch.tensor(tuple(ranks), device=device)
    for part in torch.arange(len(query), device=device).split(step):
        match = gallery_identities == query_identities[part, None]
        match &= gallery_cameras != query_cameras[part, None]
        matched = match.any(1)
        part, match = part[matched], match[matched]
        if len(part) == 0:
            continue
        scores = torch.mm(query[part], gallery.T, out=buffer[: len(part)])  # autocast does not change calls with `out`
        numbers = torch.rand(len(part), repeats, len(persons), generator=generator).to(device)

        own = torch.searchsorted(persons, query_identities[part])
        count = match.sum(1)
        place = _drawn(numbers.gather(2, own[:, None, None].expand(-1, repeats, 1)).squeeze(2), count[:, None])
        right = match.nonzero()[:, 1][(count.cumsum(0) - count)[:, None] + place]  # [q, repeats] gallery rows
        others = by_person[first + _drawn(numbers, images)]  # [q, repeats, persons]
        compared = scores, right, tolerance[part, None, None], ties
        above, tied = _ahead(others, *compared)
        for column in (above, tied):
            column.scatter_(2, own[:, None, None].expand(-1, repeats, 1), False)
        above, tied = above.sum(2), tied.sum(2)
        if len(distractors):
            more = _ahead(distractors.expand(len(part), repeats, -1), *compared)
            above, tied = above + more[0].sum(2), tied + more[1].sum(2)
        chances = (limits - above[:, :, None]).double() / (tied[:, :, None] + 1)
        hits[part] = chances.clamp_(0, 1).mean(1)
    return hits


def _drawn(numbers: Tensor, images: Tensor) -> Tensor:
    """Returns `floor(number * images)` of numbers in [0, 1): the index of the drawn image."""
    return (numbers * images).long()  # below `images` in float32 even for the largest number, 1 - 2**-24


def _ahead(rows: Tensor, scores: Tensor, right: Tensor, tolerance: Tensor, ties: Ties) -> tuple[Tensor, Tensor]:
    """Returns whether images `rows` `[q, repeats, n]` rank before `right` `[q, repeats]`, and whether they tie."""
    theirs = scores.gather(1, rows.flatten(1)).view(rows.shape)
    own = scores.gather(1, right)[:, :, None]
    if ties == "order":
        above = (theirs > own) | ((theirs == own) & (rows < right[:, :, None]))
        return above, torch.zeros_like(above)
    above = theirs > own + tolerance
    return above, (theirs >= own - tolerance) & ~above
