"""Single-gallery-shot CMC compared with a loop over the same draws, the exact expectation, and values by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedreid_pl.data.samples import DISTRACTOR, JUNK
from fedreid_pl.functional import single_shot
from fedreid_pl.functional.ranking import retrieval_results
from fedreid_pl.functional.single_shot import single_shot_cmc

RANKS = (1, 3, 5)


def integers(seed, queries=9, gallery=60, identities=6, cameras=3):
    """Returns small integer features: scores are exact in any order of summation, and many are tied."""
    rng = np.random.default_rng(seed)
    case = (
        rng.integers(-3, 4, (queries, 3)).astype(np.float32),
        rng.integers(0, identities + 1, queries),
        rng.integers(0, cameras, queries),
        rng.integers(-3, 4, (gallery, 3)).astype(np.float32),
        rng.integers(-3, identities, gallery),  # distractors with two codes, junk, and one query without any match
        rng.integers(0, cameras, gallery),
    )
    return tuple(torch.from_numpy(column) for column in case)


def candidates(case, query):
    """Returns the candidate rows of the query's person, of every other person, and the rows that always stay."""
    _, ids, cameras, _, gallery_ids, gallery_cameras = (column.tolist() for column in case)
    rows = range(len(gallery_ids))
    own = [g for g in rows if gallery_ids[g] == ids[query] and gallery_cameras[g] != cameras[query]]
    persons = sorted({identity for identity in gallery_ids if identity >= 0})
    others = {p: [g for g in rows if gallery_ids[g] == p] for p in persons}
    stay = [g for g in rows if gallery_ids[g] < 0 and gallery_ids[g] != JUNK]
    return own, others, stay


def loop(case, seed, repeats):
    """Sorts one drawn gallery after the other, with random numbers in the documented order."""
    scores = (case[0].double() @ case[3].double().T).tolist()
    generator = torch.Generator().manual_seed(seed)
    result = np.zeros((len(case[0]), len(RANKS)))
    for query in range(len(case[0])):
        own, others, stay = candidates(case, query)
        if not own:
            continue
        for _ in range(repeats):
            gallery, right = list(stay), None
            for person, rows in others.items():
                number = np.float32(torch.rand(1, generator=generator).item())
                mine = person == int(case[1][query])
                rows = own if mine else rows
                row = rows[int(number * np.float32(len(rows)))]
                gallery.append(row)
                right = row if mine else right
            gallery.sort(key=lambda row: (-scores[query][row], row))
            place = gallery.index(right) + 1
            result[query] += [place <= k for k in RANKS]
    return result / repeats


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("chunk", "tile"), [(256, 1 << 21), (4, 1 << 21), (256, 200), (1, 1)])
def test_equals_a_loop_over_the_same_draws(seed, chunk, tile, monkeypatch):
    monkeypatch.setattr(single_shot, "_TILE", tile)
    case = integers(seed)
    result = single_shot_cmc(*case, torch.Generator().manual_seed(seed), 7, RANKS, chunk, ties="order")
    assert result.dtype == torch.float64 and result.shape == (9, 3)
    wanted = loop(case, seed, 7)
    assert result.numpy() == pytest.approx(wanted, abs=1e-12)
    assert 0 < wanted.mean() < 1


def expectation(case, query):
    """Computes P(rank <= k) from the distribution of the number of persons that rank above each correct image."""
    own, others, stay = candidates(case, query)
    scores = (case[0][query].double() @ case[3].double().T).tolist()
    result = np.zeros(len(RANKS))
    for right in own:

        def ahead(row, right=right):
            return (-scores[row], row) < (-scores[right], right)

        counts = np.array([1.0])  # counts[n] = P(n persons rank above): a Poisson binomial, person by person
        for person, rows in others.items():
            if person != int(case[1][query]):
                share = np.mean([ahead(row) for row in rows])
                counts = np.convolve(counts, [1 - share, share])
        certain = sum(ahead(row) for row in stay)
        result += [counts[: max(0, k - certain)].sum() / len(own) for k in RANKS]
    return result


def test_converges_to_the_exact_expectation():
    case = integers(2)
    repeats = 6000
    result = single_shot_cmc(*case, torch.Generator().manual_seed(5), repeats, RANKS, ties="order").numpy()
    random = 0
    for query in range(len(case[0])):
        wanted = expectation(case, query)
        random += int(((wanted > 0.02) & (wanted < 0.98)).sum())
        assert result[query] == pytest.approx(wanted, abs=5 * 0.5 / repeats**0.5)
    assert random >= 10, "the draw matters in this case"


def test_with_one_image_per_person_it_equals_the_ordinary_cmc():
    rng = np.random.default_rng(0)
    query, gallery = (torch.from_numpy(rng.normal(size=(20, 4))) for _ in range(2))
    identities, one = torch.arange(20), torch.ones(20, dtype=torch.int64)
    sides = (query, identities, 0 * one, gallery, identities.flip(0), one)
    wanted = retrieval_results(*sides).first_hit[:, None] <= torch.tensor(RANKS)
    assert torch.equal(single_shot_cmc(*sides, torch.Generator(), 3, RANKS), wanted.double())
    assert 0 < wanted.sum() < wanted.numel()


def test_worked_out_by_hand():
    # best to worst: junk, own camera, distractor, distractor, the match; each distractor is a person of its own
    gallery = torch.tensor([[9.0], [8.0], [7.0], [6.0], [5.0], [4.0]])
    identities = torch.tensor([JUNK, 0, DISTRACTOR, DISTRACTOR, 0, 3])
    cameras = torch.tensor([1, 0, 1, 1, 1, 0])
    query = torch.ones(1, 1), torch.tensor([0]), torch.tensor([0])
    result = single_shot_cmc(*query, gallery, identities, cameras, torch.Generator(), 4, (1, 2, 3))
    assert result.tolist() == [[0.0, 0.0, 1.0]]


def test_ties_rank_by_row_and_a_query_without_a_match_draws_nothing():
    query = torch.ones(3, 1), torch.tensor([5, 1, 2]), torch.tensor([0, 0, 0])
    gallery = torch.ones(2, 1), torch.tensor([2, 1]), torch.tensor([1, 1])
    generator = torch.Generator().manual_seed(0)
    result = single_shot_cmc(*query, *gallery, generator, 2, (1, 2), ties="order")
    assert result.tolist() == [[0.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    again = torch.Generator().manual_seed(0)
    torch.rand(2 * 2 * 2, generator=again)
    assert torch.equal(generator.get_state(), again.get_state())


def test_the_largest_random_number_selects_the_last_image():
    images = torch.arange(1, 100_000)
    assert torch.equal(single_shot._drawn(torch.tensor(1 - 2**-24), images), images - 1)


def test_bad_input_is_refused():
    case = integers(0)
    for options in ({"repeats": 0}, {"chunk": 0}, {"ranks": (0, 1)}):
        with pytest.raises(ValueError, match="at least 1"):
            single_shot_cmc(*case, torch.Generator(), **options)
    with pytest.raises(ValueError, match="identities must be >= 0"):
        single_shot_cmc(case[0], case[1] - 9, *case[2:], torch.Generator())
