"""k-reciprocal re-ranking compared with a literal implementation with sets and dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fedreid_pl.functional import reranking
from fedreid_pl.functional.reranking import KReciprocal, reranked_results


def by_definition(query: np.ndarray, gallery: np.ndarray, k1: int, k2: int, weight: float) -> np.ndarray:
    """Computes distances [Q, G] image by image with Python sets."""
    images = np.concatenate([query, gallery])
    count = len(images)
    original = ((images[:, None] - images[None]) ** 2).sum(2)
    original /= original.max(1, keepdims=True)
    ranking = [sorted(range(count), key=lambda other: (original[i, other], other)) for i in range(count)]

    def reciprocal(i: int, k: int) -> set[int]:
        return {other for other in ranking[i][: k + 1] if i in ranking[other][: k + 1]}

    vectors = np.zeros((count, count))
    for i in range(count):
        members = reciprocal(i, k1)
        expanded = set(members)
        for candidate in members:
            theirs = reciprocal(candidate, round(k1 / 2))
            if len(theirs & members) > 2 / 3 * len(theirs):
                expanded |= theirs
        for other in expanded:
            vectors[i, other] = np.exp(-original[i, other])
        vectors[i] /= vectors[i].sum()
    averaged = np.stack([vectors[ranking[i][:k2]].mean(0) for i in range(count)])
    result = np.empty((len(query), len(gallery)))
    for q in range(len(query)):
        for g in range(len(gallery)):
            low = np.minimum(averaged[q], averaged[len(query) + g]).sum()
            high = np.maximum(averaged[q], averaged[len(query) + g]).sum()
            result[q, g] = (1 - weight) * (1 - low / high) + weight * original[q, len(query) + g]
    return result


def crowd(persons: int, shots: int, spread: float, seed: int) -> torch.Tensor:
    draws = torch.Generator().manual_seed(seed)
    centre = torch.randn(persons, 1, 12, generator=draws, dtype=torch.float64)
    noise = torch.randn(persons, shots, 12, generator=draws, dtype=torch.float64)
    return F.normalize((centre + spread * noise).flatten(0, 1), dim=1)


@pytest.mark.parametrize("spread", [0.2, 0.8])
@pytest.mark.parametrize(("k1", "k2", "weight"), [(20, 6, 0.3), (7, 3, 0.0), (4, 1, 0.5), (1, 1, 1.0), (5, 9, 0.3)])
def test_equals_the_definition(k1: int, k2: int, weight: float, spread: float) -> None:
    features = crowd(14, 5, spread, seed=k1)
    query, gallery = features[::5], features[torch.arange(len(features)) % 5 > 0]
    found = KReciprocal(query, gallery, k1, k2, weight, chunk=9)
    wanted = by_definition(query.numpy(), gallery.numpy(), k1, k2, weight)
    rows = torch.arange(len(query))
    np.testing.assert_allclose(found.distances(rows).numpy(), wanted, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.distances(rows[[3, 1]]).numpy(), wanted[[3, 1]], rtol=0, atol=1e-6)


def test_fewer_images_than_neighbours() -> None:
    features = crowd(2, 3, 0.5, seed=1)
    found = KReciprocal(features[:2], features[2:]).distances(torch.arange(2))
    np.testing.assert_allclose(found, by_definition(features[:2].numpy(), features[2:].numpy(), 20, 6, 0.3), atol=1e-6)


def test_computing_in_pieces_gives_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    features = crowd(10, 6, 0.6, seed=4)
    rows = torch.arange(10)
    whole = KReciprocal(features[:10], features[10:]).distances(rows)
    monkeypatch.setattr(reranking, "_PAIRS", 64)
    torch.testing.assert_close(KReciprocal(features[:10], features[10:], chunk=3).distances(rows), whole)


def test_the_order_of_the_gallery_does_not_matter() -> None:
    features = crowd(10, 6, 0.6, seed=5)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    rows = torch.arange(10)
    plain = KReciprocal(features[:10], features[10:]).distances(rows)
    torch.testing.assert_close(KReciprocal(features[:10], features[10:][order]).distances(rows), plain[:, order])


@pytest.mark.parametrize("wrong", [{"k1": 0}, {"k2": 0}, {"weight": 1.5}, {"chunk": 0}])
def test_invalid_arguments_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="must be"):
        KReciprocal(torch.eye(3), torch.eye(3), **wrong)


def test_scores_are_those_of_a_loop_over_the_definition() -> None:
    features = crowd(14, 6, 1.2, seed=3)
    identities, shots = torch.arange(14).repeat_interleave(6), torch.arange(6).repeat(14)
    cameras, asked, held = shots % 3, (shots == 0) & (identities < 10), shots > 0
    identities = torch.where(torch.arange(84) % 11 == 5, -1, torch.where(identities > 11, -2, identities))
    identities[asked] = torch.arange(10)
    own, theirs = [(features[rows], identities[rows], cameras[rows]) for rows in (asked, held)]
    found = reranked_results(*own, *theirs, chunk=7)
    query, own = own[0], own[1:]
    kept = theirs[1] != -1
    distances = by_definition(query.numpy(), theirs[0][kept].numpy(), 20, 6, 0.3)
    gallery, cameras = theirs[1][kept].tolist(), theirs[2][kept].tolist()
    for row, (identity, camera) in enumerate(zip(*(column.tolist() for column in own), strict=True)):
        order = [j for j in np.argsort(distances[row]) if (gallery[j], cameras[j]) != (identity, camera)]
        hits = [rank for rank, j in enumerate(order, 1) if gallery[j] == identity]
        assert bool(found.valid[row]) == bool(hits)
        if hits:
            assert int(found.first_hit[row]) == hits[0]
            assert float(found.ap[row]) == pytest.approx(np.mean([n / rank for n, rank in enumerate(hits, 1)]))
    assert float(found.ap.mean()) != 1.0
