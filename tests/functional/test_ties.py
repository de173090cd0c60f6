"""Equal scores: expectations over all orders, and invariance to the order of rows."""

from __future__ import annotations

import itertools
from statistics import mean

import numpy as np
import pytest
import torch

from fedreid_pl.functional.ranked_lists import cmc_curve
from fedreid_pl.functional.ranking import RetrievalResults, retrieval_results, summarize
from fedreid_pl.functional.single_shot import single_shot_cmc
from fedreid_pl.metrics.retrieval import ReIDRetrieval

Case = list[torch.Tensor]


def measures(order: list[bool]) -> list[float]:
    """Returns hits at rank 1 to 4, AP, trapezoidal AP and INP of a list in which `True` is a match."""
    places = [place for place, hit in enumerate(order, 1) if hit]
    found, before, ap, area = 0, 1.0, 0.0, 0.0
    for place, hit in enumerate(order, 1):
        found += hit
        if hit:
            ap += found / place
            area += (before + found / place) / 2
        before = found / place
    return [*(float(places[0] <= k) for k in range(1, 5)), ap / found, area / found, found / places[-1]]


def over_all_orders(scores: list[float], hits: list[bool]) -> list[float]:
    """Returns the means over all orders of the images within each score."""
    levels = [[hit for score, hit in zip(scores, hits, strict=True) if score == level] for level in set(scores)]
    levels = [level for _, level in sorted(zip(set(scores), levels, strict=True), key=lambda item: -item[0])]
    every = itertools.product(*(list(itertools.permutations(level)) for level in levels))
    rows = [measures([hit for level in orders for hit in level]) for orders in every]
    return [mean(column) for column in zip(*rows, strict=True)]


def one_query(scores: list[float], hits: list[bool]) -> Case:
    return [
        *(torch.ones(1, 1), torch.tensor([0]), torch.tensor([0])),
        *(torch.tensor(scores)[:, None], torch.tensor([0 if hit else 7 for hit in hits]), torch.ones(len(hits)).long()),
    ]


def values(results: RetrievalResults) -> list[float]:
    columns = (results.ap, results.ap_trapezoid, results.inp)
    return [*results.hit_rates(4)[0].tolist(), *(float(column[0]) for column in columns)]


@pytest.mark.parametrize("seed", range(60))
def test_expectations_equal_the_mean_over_every_order(seed: int) -> None:
    draws = np.random.default_rng(seed)
    size = int(draws.integers(1, 8))
    scores = [float(score) for score in draws.integers(0, int(draws.integers(1, 4)), size)]
    hits = [bool(hit) for hit in draws.random(size) < 0.5]
    hits[int(draws.integers(size))] = True
    assert values(retrieval_results(*one_query(scores, hits))) == pytest.approx(
        over_all_orders(scores, hits), abs=1e-12
    )


def collapsed(noise: float = 0.0, queries: int = 30, gallery: int = 113) -> Case:
    """Returns equal features for all images, apart from noise far below the rounding of features."""
    draws = torch.Generator().manual_seed(1)
    feature = torch.nn.functional.normalize(torch.randn(1, 96, generator=draws), dim=1)
    case: Case = []
    for count in (queries, gallery):
        features = feature.repeat(count, 1) + noise * torch.randn(count, 96, generator=draws)
        ids = torch.arange(count) % 9
        case += [features, ids, torch.randint(0, 3, (count,), generator=draws)]
    return case


@pytest.mark.parametrize("noise", [0.0, 1e-8])
def test_a_collapsed_model_has_chance_scores(noise: float) -> None:
    case = collapsed(noise)
    summary = summarize(retrieval_results(*case), ranks=(1,))
    _, ids, cameras, _, theirs, seen_by = (column.tolist() for column in case)
    chances = []
    for identity, camera in zip(ids, cameras, strict=True):
        kept = [them == identity for them, by in zip(theirs, seen_by, strict=True) if (them, by) != (identity, camera)]
        chances.append(sum(kept) / len(kept))
    assert summary["rank1"] == pytest.approx(mean(chances), abs=1e-12)
    in_order = summarize(retrieval_results(*case, ties="order"), ranks=(1,))
    assert noise or in_order["rank1"] != pytest.approx(summary["rank1"], abs=1e-3), (
        "row order changes the score without expectations"
    )


def ties_and_others() -> list[Case]:
    """Returns collapsed, nearly collapsed, and integer features with many ties, and repeated images among others."""
    draws = torch.Generator().manual_seed(2)
    whole, mixed = collapsed(), collapsed()
    whole[0], whole[3] = (torch.randint(-1, 2, (len(whole[i]), 3), generator=draws).float() for i in (0, 3))
    features = torch.nn.functional.normalize(torch.randn(40, 96, generator=draws), dim=1)
    mixed[0], mixed[3] = features[:30], features[torch.randint(0, 40, (113,), generator=draws)]
    return [collapsed(), collapsed(1e-8), collapsed(1e-7), whole, mixed]


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("seed", [3, 4])
def test_a_permutation_of_the_gallery_changes_no_number(number: int, seed: int) -> None:
    case = ties_and_others()[number]
    moved = torch.randperm(len(case[3]), generator=torch.Generator().manual_seed(seed))
    permuted = [*case[:3], *(column[moved] for column in case[3:])]
    one, other = (retrieval_results(*columns, chunk=7) for columns in (case, permuted))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert torch.equal(cmc_curve(one), cmc_curve(other))
    shots = [single_shot_cmc(*c, torch.Generator().manual_seed(5), 4, (1, 3)) for c in (case, permuted)]
    assert torch.equal(*shots)


def test_a_permutation_of_the_queries_permutes_the_numbers() -> None:
    case = ties_and_others()[2]
    flipped = retrieval_results(*(column.flip(0) for column in case[:3]), *case[3:], chunk=7)
    for one, back in zip(retrieval_results(*case, chunk=7), flipped, strict=True):
        assert torch.equal(one, back.flip(0))


def test_the_tolerance_is_four_units_of_rounding() -> None:
    for apart, tied in ((3e-7, True), (2e-6, False)):
        results = retrieval_results(*one_query([1.0, 1.0 - apart], [False, True]))
        assert results.tied_first().tolist() == [tied]
        assert results.hit_rates(2).tolist() == [[0.5 if tied else 0.0, 1.0]]
        scaled = one_query([100.0, 100.0 - 100 * apart], [False, True])
        assert retrieval_results(*scaled).tied_first().tolist() == [tied]


@pytest.mark.parametrize(("others", "wanted"), [(0, 1.0), (1, 1 / 2), (4, 1 / 5)])
def test_single_shot_averages_over_equal_scores(others: int, wanted: float) -> None:
    case = one_query([1.0] * (others + 2), [True, True] + [False] * others)
    case[4] = torch.tensor([0, 0, *range(1, others + 1)])
    hits = single_shot_cmc(*case, torch.Generator(), 3, (1, 99))
    assert hits[0].tolist() == pytest.approx([wanted, 1.0])


def test_the_metric_passes_the_option_on_and_reports_the_share_of_ties() -> None:
    case = collapsed()
    for ties in ("expected", "order"):
        metric = ReIDRetrieval(ranks=(1,), ties=ties)
        for query, side in ((True, case[:3]), (False, case[3:])):
            metric.update(*side, torch.arange(len(side[0])), query=query)
        wanted = summarize(retrieval_results(*case, ties=ties), ranks=(1,))
        assert metric.compute() == wanted
        assert metric.tied == (1.0 if ties == "expected" else 0.0)
    with pytest.raises(ValueError, match="ties"):
        retrieval_results(*case, ties="random")  # type: ignore[arg-type]
