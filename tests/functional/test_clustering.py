"""One step of FINCH compared with scipy's graph components and the authors' package, and invariances."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from finch import FINCH
from scipy.sparse.csgraph import connected_components

from fedreid_pl.functional.clustering import first_neighbor_clusters


def draw(rows: int, size: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(seed))


def by_loops(rows: list[list[float]]) -> list[int]:
    """Returns the components of the graph that links i and j if k_i = j, k_j = i or k_i = k_j."""
    count = len(rows)
    first = []
    for i, row in enumerate(rows):
        best, cosine = -1, -2.0
        for j, other in enumerate(rows):
            value = math.fsum(x * y for x, y in zip(row, other, strict=True)) / (math.hypot(*row) * math.hypot(*other))
            if j != i and value > cosine:
                best, cosine = j, value
        first.append(best)
    adjacency = np.zeros((count, count), dtype=bool)
    for i in range(count):
        for j in range(count):
            adjacency[i, j] = first[i] == j or first[j] == i or first[i] == first[j]
    return connected_components(adjacency, directed=False)[1].tolist()


def groups(labels: list[int]) -> set[frozenset[int]]:
    return {frozenset(row for row, other in enumerate(labels) if other == label) for label in labels}


@pytest.mark.parametrize("rows", [2, 3, 5, 9, 41])
@pytest.mark.parametrize("size", [2, 7, 512])
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_components_of_the_graph_of_the_paper(rows: int, size: int, seed: int) -> None:
    features = draw(rows, size, 1000 * rows + 10 * size + seed) + 0.5
    labels = first_neighbor_clusters(features)
    assert groups(labels) == groups(by_loops(features.tolist()))
    assert list(dict.fromkeys(labels)) == list(range(len(set(labels)))), "numbered in the order of the first row"
    assert all(type(label) is int for label in labels)


@pytest.mark.parametrize("rows", [6, 20, 100])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_first_partition_of_the_authors_package(rows: int, seed: int) -> None:
    features = draw(rows, 16, 100 * rows + seed)
    partitions, counts, _ = FINCH(features.double().numpy(), distance="cosine", verbose=False)
    labels = first_neighbor_clusters(features)
    assert len(set(labels)) == counts[0]
    assert groups(labels) == groups(partitions[:, 0].tolist())


def at(*degrees: float) -> torch.Tensor:
    return torch.tensor([[math.cos(math.radians(angle)), math.sin(math.radians(angle))] for angle in degrees])


@pytest.mark.parametrize(
    ("features", "wanted"),
    [
        (torch.zeros(0, 3), []),
        (at(30), [0]),
        (at(0, 180), [0, 0]),
        (at(0, 1, 90, 92), [0, 0, 1, 1]),
        (at(90, 0, 92, 1), [0, 1, 0, 1]),
        (at(0, 10, 19, 100, 105), [0, 0, 0, 1, 1]),  # 0 -> 10 -> 19 -> 10: a chain
        (at(0, 10, 25, 32), [0, 0, 1, 1]),  # neighbours with nearer neighbours are not linked
        (at(0, 10, 18, 25), [0, 0, 0, 0]),  # 10 -> 18
        (at(10, 0, 21), [0, 0, 0]),  # both share the first as their neighbour
        (at(179, -179, 0), [0, 0, 0]),  # a distant row is still linked to its nearest
        (100 * at(0, 0.5) + 1e-3, [0, 0]),
    ],
)
def test_by_hand(features: torch.Tensor, wanted: list[int]) -> None:
    assert first_neighbor_clusters(features) == wanted


def test_a_tie_selects_the_first_row() -> None:
    cross = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    assert first_neighbor_clusters(cross) == [0, 0, 0, 0]  # 0 -> 1 -> 0, 2 -> 1, 3 -> 0
    same = torch.tensor([[3.0, 1.0, 0.2]]).repeat(5, 1) * torch.tensor([[1.0], [2.0], [0.5], [4.0], [8.0]])
    assert first_neighbor_clusters(same) == [0] * 5
    one, other, between = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0])
    assert first_neighbor_clusters(torch.stack([one, one, between, other, other])) == [0, 0, 0, 1, 1]
    assert first_neighbor_clusters(torch.stack([between, other, other, one, one])) == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("odd", [0.0, math.nan, math.inf])
def test_a_row_without_a_direction_is_alone(odd: float) -> None:
    features = at(0, 5, 90, 95)
    lost = torch.full((1, 2), odd)
    assert first_neighbor_clusters(torch.cat([lost, features, lost])) == [0, 1, 1, 2, 2, 3]
    assert first_neighbor_clusters(torch.cat([features[:1], lost])) == [0, 1]
    assert first_neighbor_clusters(torch.cat([lost, lost])) == [0, 1]


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_rows_does_not_matter(seed: int) -> None:
    features = draw(12, 6, seed)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(seed + 100))
    labels = first_neighbor_clusters(features)
    shuffled = first_neighbor_clusters(features[order])
    assert {frozenset(order[row].item() for row in group) for group in groups(shuffled)} == groups(labels)
    assert len(set(labels)) > 1


@pytest.mark.parametrize("scale", [1e-30, 0.3, 7.0, 1e30])
def test_lengths_do_not_matter(scale: float) -> None:
    features = draw(15, 8, 3)
    wanted = first_neighbor_clusters(features)
    assert first_neighbor_clusters(features * scale) == wanted
    assert first_neighbor_clusters(features * torch.logspace(-3, 3, 15)[:, None]) == wanted
    assert first_neighbor_clusters(features.double() * 1e200) == wanted
    assert first_neighbor_clusters(features.requires_grad_()) == wanted


def test_rotations_do_not_matter() -> None:
    features = draw(15, 8, 4).double()
    rotation = torch.linalg.qr(draw(8, 8, 5).double()).Q
    assert first_neighbor_clusters(features @ rotation) == first_neighbor_clusters(features)


@pytest.mark.parametrize("sizes", [(2, 2), (3, 3), (2, 3), (7, 9)])
def test_separated_groups_are_never_joined(sizes: tuple[int, int]) -> None:
    centres = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    features = centres.repeat_interleave(torch.tensor(sizes), 0) + 0.05 * draw(sum(sizes), 4, 6)
    labels = first_neighbor_clusters(features)
    assert not set(labels[: sizes[0]]) & set(labels[sizes[0] :])
    if max(sizes) <= 3:  # larger groups may split into pairs
        assert len(set(labels)) == 2


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4), ()])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"an \[N, D\] tensor"):
        first_neighbor_clusters(torch.ones(shape))
