"""Ranking compared with a sort-based reference on exact scores, scikit-learn, and values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fedreid_pl.data.samples import DISTRACTOR, JUNK
from fedreid_pl.functional import ranking
from fedreid_pl.functional.ranking import RetrievalResults, retrieval_results, summarize


def reference(query, query_ids, query_cams, gallery, gallery_ids, gallery_cams):
    """Returns `(first hit, AP, trapezoidal AP, INP)` or None for each query: sorts the valid rows and counts hits."""
    rows = []
    for feature, identity, camera in zip(query, query_ids, query_cams, strict=True):
        kept = [
            g
            for g in range(len(gallery))
            if gallery_ids[g] != -1 and (gallery_ids[g] != identity or gallery_cams[g] != camera)
        ]
        scores = np.array([np.dot(feature.astype(np.float64), gallery[g].astype(np.float64)) for g in kept])
        ranked = [kept[place] for place in np.argsort(-scores, kind="stable")]
        total = sum(gallery_ids[g] == identity for g in ranked)
        if total == 0:
            rows.append(None)
            continue
        found, first, last, ap, area, before = 0, None, None, 0.0, 0.0, 1.0
        for place, g in enumerate(ranked, start=1):
            if gallery_ids[g] == identity:
                found += 1
                first, last = first or place, place
                ap += found / place
                area += (before + found / place) / 2
            before = found / place
        rows.append((first, ap / total, area / total, total / last))
    return rows


def check(case, **options) -> RetrievalResults:
    """Compares the results in row order with the reference; test_ties.py checks expectations."""
    results = retrieval_results(*(torch.as_tensor(column) for column in case), ties="order", **options)
    for position, expected in enumerate(reference(*case)):
        assert bool(results.valid[position]) == (expected is not None)
        if expected is None:
            assert results.first_hit[position] == torch.iinfo(torch.int64).max
            assert [float(column[position]) for column in results[1:4]] == [0.0, 0.0, 0.0]
        else:
            assert int(results.first_hit[position]) == expected[0]
            actual = [float(column[position]) for column in results[1:4]]
            assert actual == pytest.approx(list(expected[1:]), abs=1e-12)
    return results


def integers(seed, queries, gallery, dim=3, spread=3, identities=4, cameras=3):
    """Returns small integer features: scores are exact in any order of summation, and most are tied."""
    rng = np.random.default_rng(seed)
    return (
        rng.integers(-spread, spread + 1, (queries, dim)).astype(np.float32),
        rng.integers(0, identities, queries),
        rng.integers(0, cameras, queries),
        rng.integers(-spread, spread + 1, (gallery, dim)).astype(np.float32),
        rng.integers(-3, identities + 1, gallery),
        rng.integers(0, cameras, gallery),
    )


def distinct(seed=0, queries=40, gallery=700):
    """Returns normalised float64 features, so that all scores of a query differ."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(12, 16))
    sides = []
    for size in (queries, gallery):
        identities = rng.integers(0, 12, size)
        features = centres[identities] + 2.0 * rng.normal(size=(size, 16))
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        sides += [features, identities, rng.integers(0, 4, size)]
    return tuple(sides)


def one_query(scores, identities, cameras=None, identity=0):
    """Returns a case with a single query of camera 0 and the given scores."""
    gallery = np.asarray(scores, dtype=np.float32)[:, None]
    cameras = np.ones(len(gallery), dtype=np.int64) if cameras is None else np.asarray(cameras)
    query = np.ones((1, 1), dtype=np.float32), np.array([identity]), np.array([0])
    return *query, gallery, np.asarray(identities), cameras


def test_worked_out_by_hand():
    # Ranking: junk and the same-camera image are excluded, then miss, hit, distractor, hit, miss.
    case = one_query(
        scores=[9, 8, 7, 6, 5, 4, 3],
        identities=[JUNK, 0, 3, 0, DISTRACTOR, 0, 2],
        cameras=[1, 0, 1, 1, 1, 2, 0],
    )
    results = check(case)
    assert results.first_hit.tolist() == [2]
    assert results.ap.tolist() == [(1 / 2 + 2 / 4) / 2]
    assert results.ap_trapezoid.tolist() == pytest.approx([((0 / 1 + 1 / 2) / 2 + (1 / 3 + 2 / 4) / 2) / 2])
    assert results.inp.tolist() == [2 / 4]
    summary = summarize(results)
    assert list(summary) == ["rank1", "rank5", "rank10", "mAP", "mAP_trapezoid", "mINP", "queries"]
    assert (summary["rank1"], summary["rank5"], summary["queries"]) == (0.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("case", "first_hit"),
    [
        (one_query([1, 1, 1], [5, 0, 0]), 2),  # all tied: ranked in the gallery's order
        (one_query([1, 1, 1], [0, 5, 0]), 1),
        (one_query([0.0, -0.0], [5, 0]), 2),  # both zeros are equal
        (one_query([-0.0, 0.0], [5, 0]), 2),
        (one_query([1, 2], [0, 0]), 1),
        (one_query([2], [0]), 1),  # one gallery image
        (one_query([-5, -4, -3], [0, DISTRACTOR, -7]), 3),  # all other negative identities are distractors
        (one_query([-1e-45, 0.0], [0, 9]), 2),  # the smallest possible difference
    ],
)
def test_small_galleries(case, first_hit):
    assert check(case).first_hit.tolist() == [first_hit]


@pytest.mark.parametrize(
    "case",
    [
        one_query([1], [3]),
        one_query([1, 2], [JUNK, JUNK]),
        one_query([1, 2], [0, 0], cameras=[0, 0]),  # one camera only
        one_query([1, 2], [DISTRACTOR, 4]),
    ],
)
def test_a_query_without_a_match(case):
    results = check(case)
    with pytest.raises(ValueError, match="no query has a match"):
        summarize(results)
    kept = summarize(results, keep_unmatched=True)
    assert set(kept.values()) == {0.0}


def test_unmatched_queries_in_or_out_of_the_denominator():
    query = np.eye(3, dtype=np.float32), np.array([0, 1, 2]), np.zeros(3, dtype=np.int64)
    gallery = np.eye(3, dtype=np.float32)[[1, 0]], np.array([1, 0]), np.ones(2, dtype=np.int64)
    results = check((*query, *gallery))
    assert summarize(results) == dict.fromkeys(summarize(results), 1.0) | {"queries": 2.0}
    kept = summarize(results, ranks=(1, 3), keep_unmatched=True)
    assert {name: round(value * 3) for name, value in kept.items()} == {
        **dict.fromkeys(["rank1", "rank3", "mAP", "mAP_trapezoid", "mINP"], 2),
        "queries": 6,
    }


@pytest.mark.parametrize("chunk", [1, 3, 7, 1000])
@pytest.mark.parametrize("tile", [1, 40, 700])
def test_ties_across_chunks_and_tiles(monkeypatch, chunk, tile):
    monkeypatch.setattr(ranking, "_TILE", tile)
    check(integers(seed=chunk, queries=11, gallery=67), chunk=chunk)


def test_unequal_numbers_of_matches():
    rng = np.random.default_rng(1)
    identities = np.repeat(np.arange(6), [0, 1, 2, 5, 60, 400])
    rng.shuffle(identities)
    size = len(identities)
    query = rng.integers(-9, 10, (30, 4)).astype(np.float32), np.arange(30) % 6, rng.integers(0, 3, 30)
    gallery = rng.integers(-9, 10, (size, 4)).astype(np.float32), identities, rng.integers(0, 3, size)
    check((*query, *gallery), chunk=7)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_small_case(data):
    queries, gallery = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 40))

    def column(size, low, high):
        return np.array(data.draw(st.lists(st.integers(low, high), min_size=size, max_size=size)))

    case = (
        *(column(queries, -2, 2).astype(np.float32)[:, None], column(queries, 0, 3), column(queries, 0, 2)),
        *(column(gallery, -2, 2).astype(np.float32)[:, None], column(gallery, -3, 3), column(gallery, 0, 2)),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "_TILE", data.draw(st.integers(1, 90)))
        check(case, chunk=data.draw(st.integers(1, 10)))


def test_average_precision_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    query, query_ids, query_cams, gallery, gallery_ids, gallery_cams = case = distinct()
    results = check(case)
    for position in range(len(query)):
        same = gallery_ids == query_ids[position]
        kept = ~(same & (gallery_cams == query_cams[position]))
        expected = metrics.average_precision_score(same[kept], (gallery @ query[position])[kept])
        assert float(results.ap[position]) == pytest.approx(expected, abs=1e-12)


def test_order_of_a_gallery_without_ties_does_not_matter():
    case = distinct(seed=2)
    shuffled = np.random.default_rng(0).permutation(len(case[3]))
    moved = (*case[:3], *(column[shuffled] for column in case[3:]))
    for one, other in zip(check(case), check(moved), strict=True):
        assert torch.equal(one, other)


def test_order_of_queries_scale_and_chunk_do_not_matter():
    case = [torch.as_tensor(column) for column in integers(seed=5, queries=37, gallery=600)]
    base = retrieval_results(*case)
    scaled = retrieval_results(case[0] * 4, *case[1:3], case[3] / 64, *case[4:])
    flipped = retrieval_results(*(column.flip(0) for column in case[:3]), *case[3:], chunk=5)
    for one, other, back in zip(base, scaled, flipped, strict=True):
        assert torch.equal(one, other) and torch.equal(one, back.flip(0))


def test_relabelling_identities_and_cameras_does_not_matter():
    case = [torch.as_tensor(column) for column in integers(seed=6, queries=20, gallery=200)]
    renamed = [*case]
    renamed[1], renamed[4] = (torch.where(case[i] >= 0, case[i] * 10**12 + 5, case[i]) for i in (1, 4))
    renamed[2], renamed[5] = (-7 - 3 * case[i] for i in (2, 5))
    for one, other in zip(retrieval_results(*case), retrieval_results(*renamed), strict=True):
        assert torch.equal(one, other)


def test_dtypes():
    case = [torch.as_tensor(column) for column in integers(seed=7, queries=9, gallery=50)]
    base = retrieval_results(*case)
    small = [column.to(torch.int32) for column in case]
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        other = retrieval_results(case[0].to(dtype), *small[1:3], case[3], *small[4:])
        assert all(torch.equal(a, b) for a, b in zip(base, other, strict=True))
    assert base.first_hit.dtype == torch.int64 and base.ap.dtype == torch.float64


def test_autocast_does_not_round_the_scores():
    case = distinct(seed=4)
    case = [torch.as_tensor(c, dtype=torch.float32 if i in (0, 3) else None) for i, c in enumerate(case)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        results = retrieval_results(*case)
    assert torch.equal(results.ap, retrieval_results(*case).ap)


def test_gradients_are_not_recorded():
    case = [torch.as_tensor(column) for column in integers(seed=8, queries=3, gallery=9)]
    assert not retrieval_results(case[0].requires_grad_(), *case[1:]).ap.requires_grad


@pytest.mark.parametrize(
    ("position", "change", "message"),
    [
        (0, lambda f: torch.full_like(f, torch.nan), "query features contain NaN"),
        (3, lambda f: f.index_fill(0, torch.tensor([4]), torch.nan), "gallery features contain NaN"),
        (3, lambda f: f.index_fill(0, torch.tensor([4]), -torch.inf), "gallery features contain NaN or inf"),
        (3, lambda f: f * 1e38, "overflow"),
        (0, lambda f: f[:, :2], "query features have 2 values, gallery features 3"),
        (0, lambda f: f.long(), "query features must be"),
        (3, lambda f: f[0], "gallery features must be"),
        (1, lambda i: i - 4, "query identities must be >= 0"),
        (1, lambda i: i[:-1], "query identities must be"),
        (5, lambda i: i.float(), "gallery cameras must be"),
    ],
)
def test_wrong_input_is_refused(position, change, message):
    case = [torch.as_tensor(column) for column in integers(seed=9, queries=6, gallery=20)]
    case[position] = change(case[position])
    with pytest.raises(ValueError, match=message):
        retrieval_results(*case)


@pytest.mark.parametrize(("first", "name"), [(0, "query"), (3, "gallery")])
def test_empty_sides_are_refused(first, name):
    case = [torch.as_tensor(column) for column in integers(seed=9, queries=6, gallery=20)]
    for position in range(first, first + 3):
        case[position] = case[position][:0]
    with pytest.raises(ValueError, match=f"the {name} is empty"):
        retrieval_results(*case)


def test_chunk_must_be_positive():
    case = [torch.as_tensor(column) for column in integers(seed=9, queries=6, gallery=20)]
    with pytest.raises(ValueError, match="chunk"):
        retrieval_results(*case, chunk=0)


class LargestTensor(TorchDispatchMode):
    """Records the bytes of the largest storage that any operation returns."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.untyped_storage().nbytes() for leaf in tree_leaves(result) if torch.is_tensor(leaf)]
        self.largest = max([self.largest, *sizes])
        return result


@pytest.mark.parametrize("identities", [1, 200])  # all of the gallery matches, or a few rows
@pytest.mark.parametrize("chunk", [8, 32])
def test_memory_is_bounded_by_the_chunk(chunk, identities):
    queries, gallery = chunk if identities == 1 else 400, 2000
    case = [torch.as_tensor(c) for c in integers(0, queries, gallery, dim=2, identities=identities)]
    with LargestTensor() as seen:
        retrieval_results(*case, chunk=chunk)
    numbers = 4 * chunk * gallery  # bytes of the scores of a chunk
    places = 8 * chunk * gallery  # if the whole gallery ties, the positions of the last match
    assert numbers <= seen.largest <= places * 1.05
    if identities > 1:
        assert seen.largest < 4 * queries * gallery / 5
