"""P x K batches: properties of every epoch, tested on random label lists."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import support
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedreid_pl.config import DataConfig, compose
from fedreid_pl.data.datamodule import ReIDDataModule
from fedreid_pl.data.identity_sampling import IdentityBatches
from fedreid_pl.data.images import ImagePool
from fedreid_pl.data.sampling import BatchRows
from fedreid_pl.data.scenarios import load_federated_data
from fedreid_pl.errors import FedReIDError

SIZES = st.lists(st.integers(1, 23), min_size=1, max_size=12)  # images per identity
P, K, SEED, EPOCH = st.integers(2, 8), st.integers(2, 5), st.integers(0, 2**62), st.integers(0, 5)


def labels_of(sizes: list[int]) -> list[int]:
    """Returns interleaved labels, so that rows of an identity are not adjacent."""
    pairs = [(count, label) for label, size in enumerate(sizes) for count in range(size)]
    return [label for _, label in sorted(pairs)]


def epoch_of(
    labels: list[int], p: int, k: int, seed: int = 0, epoch: int = 0, rank: int = 0, world: int = 1
) -> list[BatchRows]:
    batches = IdentityBatches(labels, p * k, k, seed, rank, world)
    batches.set_epoch(epoch)
    drawn = list(batches)
    assert len(drawn) == len(batches)
    return drawn


@given(SIZES, P, K, SEED, EPOCH)
def test_every_batch_has_p_identities_with_k_images(sizes: list[int], p: int, k: int, seed: int, epoch: int) -> None:
    labels = labels_of(sizes)
    for batch in epoch_of(labels, p, k, seed, epoch):
        persons = Counter(labels[row] for row in batch.rows)
        assert len(persons) == min(p, len(sizes)) and set(persons.values()) == {k}
        assert all(labels[one] == labels[other] for one, other in pairwise(batch.rows[:k]))
        assert batch.share == 1.0
        for person in persons:
            times = Counter(row for row in batch.rows if labels[row] == person)
            whole, rest = divmod(k, sizes[person])
            if sizes[person] >= k:
                assert set(times.values()) == {1}, "no repeated image if there are enough images"
            else:
                assert sorted(times.values()) == [whole] * (sizes[person] - rest) + [whole + 1] * rest


@given(SIZES, P, K, SEED, EPOCH)
def test_every_identity_appears_and_images_repeat_only_if_necessary(
    sizes: list[int], p: int, k: int, seed: int, epoch: int
) -> None:
    labels = labels_of(sizes)
    batches = epoch_of(labels, p, k, seed, epoch)
    seen = Counter(row for batch in batches for row in batch.rows)
    assert {labels[row] for row in seen} == set(range(len(sizes)))
    for person, size in enumerate(sizes):
        turns = sum(any(labels[row] == person for row in batch.rows) for batch in batches)
        passes = -(-turns // max(size // k, 1))
        most = max(seen[row] for row, label in enumerate(labels) if label == person)
        assert most <= passes * -(-k // size)


@given(SIZES, P, K)
def test_an_epoch_is_about_one_pass(sizes: list[int], p: int, k: int) -> None:
    batches = epoch_of(labels_of(sizes), p, k)
    images = sum(len(batch.rows) for batch in batches)
    one_pass = sum(max(size - size % k, k) for size in sizes)
    assert one_pass <= images < one_pass + min(p, len(sizes)) * k


def test_with_equal_identities_an_epoch_is_one_pass_exactly() -> None:
    labels = labels_of([8] * 12)
    rows = [row for batch in epoch_of(labels, 4, 4) for row in batch.rows]
    assert sorted(rows) == list(range(96))


def test_images_beyond_a_multiple_of_k_alternate_between_epochs() -> None:
    labels = labels_of([7, 7, 7, 7])
    left_out = [
        set(range(28)) - {row for batch in epoch_of(labels, 2, 4, epoch=epoch) for row in batch.rows}
        for epoch in range(25)
    ]
    assert {len(rows) for rows in left_out} == {12}
    assert set().union(*left_out) == set(range(28)) and not set.intersection(*left_out)


def test_one_identity_with_most_images_is_in_every_batch_and_no_image_of_it_is_lost() -> None:
    labels = labels_of([60, 4, 4])
    seen: Counter[int] = Counter()
    for epoch in range(12):
        batches = epoch_of(labels, 2, 4, epoch=epoch)
        assert len(batches) == 9
        for batch in batches:
            persons = {labels[row] for row in batch.rows}
            assert len(persons) == 2 and 0 in persons
        seen.update(row for batch in batches for row in batch.rows)
    assert set(seen) == set(range(68))


def test_pairs_of_identities_are_drawn_evenly() -> None:
    labels = labels_of([4] * 6)
    met: Counter[frozenset[int]] = Counter()
    for seed in range(400):
        for batch in epoch_of(labels, 2, 4, seed):
            met[frozenset(labels[row] for row in batch.rows)] += 1
    counts = torch.tensor([float(count) for count in met.values()])
    assert len(met) == 15 and float(((counts - 80) ** 2 / 80).sum()) < 40  # fourteen degrees of freedom


@pytest.mark.parametrize("world", [2, 3])
@given(sizes=SIZES, p=P, k=K, seed=SEED, epoch=EPOCH)
def test_parts_are_whole_identities_and_make_up_the_batches_of_one_process(
    world: int, sizes: list[int], p: int, k: int, seed: int, epoch: int
) -> None:
    labels = labels_of(sizes)
    whole = epoch_of(labels, p, k, seed, epoch)
    ranks = [epoch_of(labels, p, k, seed, epoch, rank, world) for rank in range(world)]
    for batch, parts in zip(whole, zip(*ranks, strict=True), strict=True):
        assert sum(part.share for part in parts) == pytest.approx(world)
        if min(p, len(sizes)) < 2 * world:
            assert {(part.rows, part.share, part.part) for part in parts} == {(batch.rows, 1.0, None)}
            continue
        assert sorted(row for part in parts for row in part.rows) == sorted(batch.rows)
        persons = [Counter(labels[row] for row in part.rows) for part in parts]
        assert all(set(count.values()) == {k} for count in persons), "every image has its positives"
        assert min(map(len, persons)) >= 2 and max(map(len, persons)) - min(map(len, persons)) <= 1
        for part in parts:
            assert part.share / world == pytest.approx(len(part.rows) / len(batch.rows))
            assert part.part is not None and part.part.total == len(batch.rows)
            assert part.rows == tuple(batch.rows[place] for place in part.part.places)
        places = sorted(place for part in parts for place in part.part.places)  # type: ignore[union-attr]
        assert places == list(range(len(batch.rows)))


def test_the_order_depends_only_on_seed_and_epoch() -> None:
    labels = labels_of([9, 5, 7, 4, 12])
    orders = {}
    for seed in (0, 1):
        for epoch in (0, 1):
            torch.manual_seed(seed + epoch)
            state = torch.get_rng_state()
            orders[seed, epoch] = tuple(batch.rows for batch in epoch_of(labels, 2, 4, seed, epoch))
            assert torch.equal(torch.get_rng_state(), state)
            torch.rand(3)
            assert tuple(batch.rows for batch in epoch_of(labels, 2, 4, seed, epoch)) == orders[seed, epoch]
    assert len(set(orders.values())) == 4


@settings(max_examples=30)
@given(st.integers(0, 6), P, K)
def test_a_batch_size_between_multiples_of_k_is_rounded_down(extra: int, p: int, k: int) -> None:
    batches = list(IdentityBatches(labels_of([6] * 9), p * k + extra % k, k, 0))
    assert {len(batch.rows) for batch in batches} == {p * k}


# in the datamodule


def test_the_loaders_batches_pair_each_image_with_its_person(tiny_root: Path) -> None:
    options = DataConfig(root=str(tiny_root), height=64, width=32, datasets=[support.TINY[0]], instances=2)
    data = load_federated_data(options)
    (client,) = data.clients.values()
    datamodule = ReIDDataModule(client, {}, ImagePool(64, 32), options, batch_size=6)
    datamodule.begin_turn(7)
    loader = datamodule.train_dataloader()
    pictures = {
        datamodule.pool.source(client.train).read([row]).numpy().tobytes(): label
        for row, label in enumerate(np.unique(client.train.identities, return_inverse=True)[1].tolist())
    }
    persons: Counter[int] = Counter()
    for images, labels, *_ in loader:
        assert [pictures[image.numpy().tobytes()] for image in images] == labels.tolist()
        assert labels.view(-1, 2)[:, 0].tolist() == labels.view(-1, 2)[:, 1].tolist()
        persons.update(labels.tolist())
    assert len(persons) == datamodule.num_identities
    again = datamodule.train_dataloader()
    again.batch_sampler.set_epoch(1)  # type: ignore[union-attr]
    assert [batch.labels.tolist() for batch in again] != [batch.labels.tolist() for batch in loader]


def test_a_batch_without_two_identities_is_refused() -> None:
    assert compose(["exp=fedpav", "batch_size=8", "data.instances=4"]).data.instances == 4
    with pytest.raises(FedReIDError, match=r"^data\.instances=5: .* half of batch_size=8"):
        compose(["exp=fedpav", "batch_size=8", "data.instances=5"])
