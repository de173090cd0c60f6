"""Retrieval scores of single persons, the unit that a bootstrap of test persons draws."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fedreid_pl.functional.ranking import RetrievalResults


class PersonScores(NamedTuple):
    """Scores of every person with a counted query, one row per person, in ascending order of identity.

    The means of `rank1` and `ap`, weighted by `queries`, are the Rank-1 and mAP of the test set.

    Attributes:
        identities: `[P]` int64.
        queries: `[P]` int64, number of counted queries.
        rank1: `[P]` float64, mean Rank-1 over these queries, in [0, 1].
        ap: `[P]` float64, mean average precision over these queries, in [0, 1].
    """

    identities: Tensor
    queries: Tensor
    rank1: Tensor
    ap: Tensor


def person_scores(results: RetrievalResults, identities: Tensor, keep_unmatched: bool = False) -> PersonScores:
    """Returns the mean scores of every person.

    Args:
        results: measures of every query.
        identities: `[Q]` integers, identity of every query.
        keep_unmatched: count queries without a match in the gallery as 0, instead of leaving them out.

    >>> ap = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    >>> first = torch.tensor([1, 2, torch.iinfo(torch.int64).max])
    >>> results = RetrievalResults(first, ap, ap, ap, torch.tensor([True, True, False]))
    >>> person_scores(results, torch.tensor([7, 7, 3])).rank1.tolist()
    [0.5]
    >>> person_scores(results, torch.tensor([7, 7, 3]), keep_unmatched=True).ap.tolist()
    [0.0, 0.75]
    """
    counted = torch.ones_like(results.valid) if keep_unmatched else results.valid
    found, place = torch.unique(identities[counted], return_inverse=True)  # in ascending order
    queries = torch.bincount(place, minlength=len(found))
    hits = results.hit_rates(1)[:, 0] * results.valid
    means = [
        torch.zeros(len(found), dtype=torch.float64, device=place.device)
        .index_add_(0, place, column[counted].to(torch.float64))
        .div(queries)
        for column in (hits, results.ap * results.valid)
    ]
    return PersonScores(found, queries, *means)
