"""Ranked lists and CMC curves compared with a plain loop over queries."""

from __future__ import annotations

import pytest
import torch

from fedreid_pl.functional.ranked_lists import cmc_curve, ranked_lists
from fedreid_pl.functional.ranking import retrieval_results, summarize

Columns = tuple[torch.Tensor, ...]


def drawn(queries: int = 23, gallery: int = 61, ties: bool = False) -> Columns:
    """Returns query and gallery with junk, distractors, unmatched queries and optionally many equal scores."""
    draws = torch.Generator().manual_seed(5)
    features = [torch.randn(size, 4, generator=draws) for size in (queries, gallery)]
    if ties:
        features = [values.round() for values in features]
    identities = torch.randint(0, 9, (queries,), generator=draws), torch.randint(-2, 8, (gallery,), generator=draws)
    cameras = [torch.randint(0, 3, (size,), generator=draws) for size in (queries, gallery)]
    return features[0], identities[0], cameras[0], features[1], identities[1], cameras[1]


def by_hand(columns: Columns, row: int) -> list[int]:
    """Returns the gallery rows of one query, best first."""
    query, identities, cameras, gallery, theirs, seen_by = columns
    scores = [float((query[row] * other).sum()) for other in gallery]
    kept = [
        place
        for place in range(len(gallery))
        if theirs[place] != -1 and not (theirs[place] == identities[row] and seen_by[place] == cameras[row])
    ]
    return sorted(kept, key=lambda place: (-scores[place], place))


@pytest.mark.parametrize("ties", [False, True])
def test_lists_equal_those_of_a_loop(ties: bool) -> None:
    columns = drawn(ties=ties)
    rows, scores = ranked_lists(*columns, length=10, chunk=7)
    assert rows.tolist() == [by_hand(columns, row)[:10] for row in range(len(columns[0]))]
    assert bool((scores.diff(dim=1) <= 0).all())


def test_a_list_longer_than_the_gallery_is_padded() -> None:
    columns = drawn(queries=3, gallery=6)
    rows, scores = ranked_lists(*columns, length=8)
    for row in range(3):
        wanted = by_hand(columns, row)
        assert rows[row].tolist() == wanted + [-1] * (8 - len(wanted))
        assert bool(scores[row, len(wanted) :].isneginf().all())


def test_the_first_match_has_the_rank_of_the_scores() -> None:
    columns = drawn()
    results = retrieval_results(*columns)
    rows, _ = ranked_lists(*columns, length=len(columns[3]))
    for row in results.valid.nonzero().squeeze(1).tolist():
        places = [columns[4][place] == columns[1][row] for place in rows[row].tolist() if place >= 0]
        assert places.index(True) + 1 == results.first_hit[row]


@pytest.mark.parametrize("keep_unmatched", [False, True])
def test_the_curve_goes_through_rank_1_5_and_10(keep_unmatched: bool) -> None:
    results = retrieval_results(*drawn())
    assert not bool(results.valid.all())
    scores = summarize(results, (1, 5, 10), keep_unmatched)
    curve = cmc_curve(results, 50, keep_unmatched)
    assert [curve[k - 1].item() for k in (1, 5, 10)] == [scores["rank1"], scores["rank5"], scores["rank10"]]
    assert bool((curve.diff() >= 0).all()) and len(curve) == 50


def test_a_curve_of_no_query_is_refused() -> None:
    results = retrieval_results(*drawn())._replace(valid=torch.zeros(23, dtype=torch.bool))
    with pytest.raises(ValueError, match="no query has a match"):
        cmc_curve(results)
    assert float(cmc_curve(results, keep_unmatched=True).sum()) == 0.0
