"""Results of a search from scores: matches of single rows, or of persons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from fedreid_pl.errors import FedReIDError
from fedreid_pl.functional.reranking import KReciprocal
from fedreid_pl.retrieval.gallery_file import Row

_CELLS = 1 << 24  # scores in memory at a time

Group = Literal["row", "person"]
Pooling = Literal["best", "mean"]


@dataclass(frozen=True)
class Match:
    """One match of a query.

    Args:
        person: person of the row.
        score: cosine similarity from -1 to 1; with `rerank` the negative re-ranked distance. Larger is more similar.
        source: source of the row, for example an image name.
        camera: camera of the row, empty if unknown.
        rows: number of rows behind the score: 1, or all rows of the person with `group="person"`.
    """

    person: str
    score: float
    source: str
    camera: str
    rows: int = 1


def check_choices(k: int, group: str, pooling: str) -> None:
    """Raises `FedReIDError` for a number of matches below 1, and for a group or a pooling that does not exist."""
    if type(k) is not int or k < 1:
        raise FedReIDError(f"k={k}: must be a whole number of at least 1")
    for key, value, choices in (("group", group, get_args(Group)), ("pooling", pooling, get_args(Pooling))):
        if value not in choices:
            raise FedReIDError(f"{key}={value}: must be {' or '.join(choices)}")


def scores_in_parts(queries: Tensor, features: Tensor, allowed: Tensor, rerank: bool) -> Iterator[Tensor]:
    """Yields the scores of a few queries at a time with all rows, `[n, G]`; rows that are not allowed have -inf.

    Args:
        queries: `[Q, D]` float32, of length 1.
        features: `[G, D]` float32 of the gallery, of length 1.
        allowed: `[G]` bool.
        rerank: negative k-reciprocal distances instead of cosine similarities.
    """
    kept = allowed.nonzero().squeeze(1)
    some = features if len(kept) == len(features) else features[kept]
    found = KReciprocal(queries, some) if rerank else None
    for rows in torch.arange(len(queries)).split(max(1, _CELLS // len(features))):
        own = found.distances(rows).neg_() if found is not None else queries[rows] @ some.T
        yield torch.full((len(rows), len(features)), -torch.inf).index_copy_(1, kept, own)


def best_rows(scores: Tensor, rows: Sequence[Row], k: int) -> list[list[Match]]:
    """Returns the `k` best rows of every query, the best first.

    Args:
        scores: `[Q, G]`, -inf where a row may not be found.
        rows: of the gallery.
        k: answers wanted.
    """
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
    best = scores.gather(1, order)
    return matches_of(best, order.masked_fill(best == -torch.inf, -1), rows)


def best_persons(scores: Tensor, rows: Sequence[Row], k: int, pooling: Pooling) -> list[list[Match]]:
    """Returns the `k` best persons of every query, the best first, each with its best row's source and camera.

    Args:
        scores, rows, k: as for `best_rows`.
        pooling: a person's score is that of the `best` row, or the `mean` over the rows that may be found.
    """
    names = list(dict.fromkeys(row.person for row in rows))
    number = {name: place for place, name in enumerate(names)}
    owner = torch.tensor([number[row.person] for row in rows]).expand(len(scores), -1)
    allowed = scores > -torch.inf
    values = torch.full((len(scores), len(names)), -torch.inf).scatter_reduce(1, owner, scores, "amax")
    counts = torch.zeros(len(scores), len(names)).scatter_add_(1, owner, allowed.float())
    if pooling == "mean":
        total = torch.zeros_like(counts).scatter_add_(1, owner, scores.masked_fill(~allowed, 0.0))
        values = torch.where(counts > 0, total / counts.clamp(min=1), -torch.inf)
    order = values.argsort(dim=1, descending=True, stable=True)[:, :k]
    answers = []
    for query, places in enumerate(order):
        matches = []
        for place in places[values[query, places] > -torch.inf].tolist():
            row = rows[int(torch.where(owner[query] == place, scores[query], -torch.inf).argmax())]
            score, held = float(values[query, place]), int(counts[query, place])
            matches.append(Match(names[place], score, row.source, row.camera, held))
        answers.append(matches)
    return answers


def matches_of(scores: Tensor, places: Tensor, rows: Sequence[Row]) -> list[list[Match]]:
    """Returns the rows at `places` `[Q, k]` with their `scores` `[Q, k]` as answers; -1 is no row."""
    answers = []
    for values, found in zip(scores.tolist(), places.tolist(), strict=True):
        kept = [(rows[place], value) for value, place in zip(values, found, strict=True) if place >= 0]
        answers.append([Match(row.person, value, row.source, row.camera) for row, value in kept])
    return answers


def verdict(matches: Sequence[Match], threshold: float) -> str:
    """Returns whether the person of a query is in the gallery, as one line.

    Args:
        matches: the answers to the query, the best first, ranked by cosine similarity.
        threshold: the person is taken to be there if the best score is above it.

    >>> verdict([Match("ann", 0.71, "1.jpg", "")], threshold=0.65)
    'the person is in the gallery: the best similarity 0.7100 is above the threshold 0.6500'
    """
    best = max((match.score for match in matches), default=-1.0)
    if best > threshold:
        return f"the person is in the gallery: the best similarity {best:.4f} is above the threshold {threshold:.4f}"
    return f"the person is not in the gallery: no similarity is above the threshold {threshold:.4f}"


def unit_features(
    features: Tensor,
    persons: Sequence[str] | None = None,
    cameras: Sequence[str] | None = None,
    sources: Sequence[str] | None = None,
) -> Tensor:
    """Checks features and returns them as `[N, D]` float32 on the CPU.

    Raises:
        FedReIDError: if features have another shape, are not finite or not of length 1, or do not match the number of
            names.
    """
    if not isinstance(features, Tensor):
        raise FedReIDError(f"features must be a tensor [N, D], got {type(features).__name__}")
    if features.dim() != 2 or not features.is_floating_point():
        raise FedReIDError(f"features must be [N, D] floating point, got {list(features.shape)} {features.dtype}")
    for name, column in (("persons", persons), ("cameras", cameras), ("sources", sources)):
        if column is not None and (isinstance(column, str) or len(column) != len(features)):
            raise FedReIDError(f"{name}: {len(column)} values for {len(features)} features")
    values = features.detach().cpu().float()
    lengths = values.norm(dim=1)
    wrong = ((lengths - 1).abs() < 1e-3).logical_not().nonzero()  # NaN is wrong as well
    if len(wrong):
        row = int(wrong[0])
        raise FedReIDError(f"feature {row} has the length {float(lengths[row]):.3g}, not 1; give what embed returns")
    return values
