"""Scores by person compared with loops over queries."""

from __future__ import annotations

import pytest
import torch

from fedreid_pl.functional.person_scores import person_scores
from fedreid_pl.functional.ranking import retrieval_results, summarize


@pytest.mark.parametrize("keep_unmatched", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_a_persons_scores_equal_those_of_a_test_set_with_only_this_person(seed: int, keep_unmatched: bool) -> None:
    draw = torch.Generator().manual_seed(seed)
    features = [torch.randint(0, 3, (size, 2), generator=draw).float() for size in (30, 50)]  # many equal scores
    identities = [torch.randint(0, 9, (size,), generator=draw) for size in (30, 50)]
    identities[1][identities[1] == 4] = 20  # person 4 has no match in the gallery
    cameras = [torch.randint(0, 3, (size,), generator=draw) for size in (30, 50)]
    gallery = (features[1], identities[1], cameras[1])
    results = retrieval_results(features[0], identities[0], cameras[0], *gallery)

    found = person_scores(results, identities[0], keep_unmatched)
    for row, person in enumerate(found.identities.tolist()):
        own = identities[0] == person
        alone = retrieval_results(features[0][own], identities[0][own], cameras[0][own], *gallery)
        scores = summarize(alone, (1,), keep_unmatched)
        assert found.rank1[row].item() == pytest.approx(scores["rank1"])
        assert found.ap[row].item() == pytest.approx(scores["mAP"])
        assert found.queries[row] == (own.sum() if keep_unmatched else scores["queries"])
    assert (4 in found.identities) == (keep_unmatched and bool((identities[0] == 4).any()))

    whole = summarize(results, (1,), keep_unmatched)
    share = found.queries.double() / found.queries.sum()
    assert float(share @ found.rank1) == pytest.approx(whole["rank1"])
    assert float(share @ found.ap) == pytest.approx(whole["mAP"])


def test_queries_without_any_match_have_no_person() -> None:
    one = torch.ones(1, 2)
    results = retrieval_results(one, torch.tensor([1]), torch.tensor([0]), one, torch.tensor([2]), torch.tensor([1]))
    assert [len(column) for column in person_scores(results, torch.tensor([1]))] == [0, 0, 0, 0]
    assert person_scores(results, torch.tensor([1]), keep_unmatched=True).rank1.tolist() == [0.0]
