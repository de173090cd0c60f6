"""Selection of images for the inspection: ranked lists of single queries, frequent confusions, sample queries."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import torch
from torch import Tensor

from fedreid_pl.functional.ranked_lists import ranked_lists
from fedreid_pl.metrics.retrieval import RankedSets

LIST, CONFUSIONS = 10, 10
POINTS, PER_IDENTITY = 40, 4  # largest numbers of queries in the feature plot: per test set, and per identity


class RankedList(NamedTuple):
    """The row of a query, and the rows of its first gallery images."""

    query: int
    hardest: bool
    average_precision: float
    gallery: list[int]
    scores: list[float]


def choose_lists(sets: RankedSets, count: int, draws: torch.Generator) -> list[RankedList]:
    """Returns ranked lists of `count` queries: half have the lowest average precision, the others are random."""
    precision = sets.results.ap.tolist()
    valid = sets.results.valid.nonzero().squeeze(1).tolist()
    hardest = sorted(valid, key=lambda row: (precision[row], row))[: count // 2]
    others = set(valid) - set(hardest)
    order = torch.randperm(len(precision), generator=draws).tolist()
    chosen = [*hardest, *[row for row in order if row in others][: count - len(hardest)]]
    if not chosen:
        return []
    gallery, scores = _first(sets, torch.tensor(chosen), LIST)
    return [
        RankedList(row, row in hardest, precision[row], [place for place in places if place >= 0], values)
        for row, places, values in zip(chosen, gallery.tolist(), scores.tolist(), strict=True)
    ]


def spread_rows(identities: list[int], draws: torch.Generator) -> list[int]:
    """Returns up to POINTS rows of random identities, at most PER_IDENTITY of each, in ascending order."""
    by_identity: dict[int, list[int]] = {}
    for row, identity in enumerate(identities):
        by_identity.setdefault(identity, []).append(row)
    groups = list(by_identity.values())
    order = torch.randperm(len(groups), generator=draws).tolist()
    return sorted([row for index in order for row in groups[index][:PER_IDENTITY]][:POINTS])


def frequent_confusions(sets: RankedSets) -> list[dict[str, int]]:
    """Returns the most frequent pairs of a query's identity and a wrong identity at rank 1."""
    wrong = (sets.results.hit_rates(1)[:, 0] < 1).logical_and(sets.results.valid).nonzero().squeeze(1)
    if len(wrong) == 0:
        return []
    first = _first(sets, wrong, 1)[0][:, 0]
    theirs = sets.gallery_identities.to(first.device)[first].tolist()
    pairs = zip(sets.query_identities[wrong].tolist(), theirs, strict=True)
    counts = Counter(pair for pair in pairs if pair[0] != pair[1])  # with equal scores, a match may be listed first
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:CONFUSIONS]
    return [{"identity": one, "mistaken_for": other, "count": count} for (one, other), count in ordered]


def _first(sets: RankedSets, rows: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Returns the ranked lists of some queries."""
    rows = rows.to(sets.query.device)
    query = sets.query[rows], sets.query_identities[rows], sets.query_cameras[rows]
    return ranked_lists(*query, sets.gallery, sets.gallery_identities, sets.gallery_cameras, length)
