"""Batches of any number of processes compared with the batches of one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from fedreid_pl.data.identity_sampling import IdentityBatches
from fedreid_pl.data.sampling import StepBatches, TestBatches, TrainBatches

SIZE, BATCH, SEED = st.integers(2, 90), st.integers(2, 20), st.integers(0, 2**62)
WORLDS = pytest.mark.parametrize("world", [1, 2, 3])


def epoch_of(size, batch_size, seed=0, epoch=0, rank=0, world=1):
    """Returns the batches of one process as a list of lists."""
    batches = TrainBatches(size, batch_size, seed, rank, world)
    batches.set_epoch(epoch)
    return list(batches)


def rows_of(batches):
    return [row for batch in batches for row in batch.rows]


# training


@given(SIZE, BATCH, SEED, st.integers(0, 5))
def test_every_image_once_per_epoch(size, batch_size, seed, epoch):
    batches = epoch_of(size, batch_size, seed, epoch)
    rows = rows_of(batches)
    dropped = int(size % batch_size == 1)
    assert len(set(rows)) == len(rows) == size - dropped
    assert set(rows) <= set(range(size))
    assert [len(batch.rows) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert 2 <= len(batches[-1].rows) <= batch_size
    assert {(batch.share, batch.part) for batch in batches} == {(1.0, None)}


def test_a_last_batch_of_one_image_is_dropped_and_a_pair_is_not():
    assert [len(batch.rows) for batch in epoch_of(9, 4)] == [4, 4]
    assert [len(batch.rows) for batch in epoch_of(10, 4)] == [4, 4, 2]
    left_out = {(set(range(9)) - set(rows_of(epoch_of(9, 4, epoch=epoch)))).pop() for epoch in range(60)}
    assert left_out == set(range(9))  # another image in every epoch


@given(SIZE, BATCH, SEED, st.integers(1, 5))
def test_length_is_the_number_of_batches_on_every_rank(size, batch_size, seed, world):
    lengths = {len(TrainBatches(size, batch_size, seed, rank, world)) for rank in range(world)}
    counts = {len(epoch_of(size, batch_size, seed, 0, rank, world)) for rank in range(world)}
    assert len(lengths) == 1
    assert counts == lengths


@WORLDS
@given(size=SIZE, batch_size=BATCH, seed=SEED, epoch=st.integers(0, 3))
def test_parts_make_up_the_batches_of_one_process(world, size, batch_size, seed, epoch):
    whole = epoch_of(size, batch_size, seed, epoch)
    ranks = [epoch_of(size, batch_size, seed, epoch, rank, world) for rank in range(world)]
    for batch, parts in zip(whole, zip(*ranks, strict=True), strict=True):
        if world == 1 or len(batch.rows) < 2 * world:
            assert set(parts) == {batch}
        else:
            for part in parts:
                assert part.rows == tuple(batch.rows[place] for place in part.part.places)
                assert part.part.total == len(batch.rows)
            assert sorted(row for part in parts for row in part.rows) == sorted(batch.rows)
            sizes = [len(part.rows) for part in parts]
            assert min(sizes) >= 2
            assert max(sizes) - min(sizes) <= 1


@given(SIZE, BATCH, SEED, st.integers(1, 5))
def test_shares_turn_means_of_parts_into_the_mean_of_the_batch(size, batch_size, seed, world):
    losses = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).tolist()
    whole = epoch_of(size, batch_size, seed)
    ranks = [epoch_of(size, batch_size, seed, 0, rank, world) for rank in range(world)]
    for batch, parts in zip(whole, zip(*ranks, strict=True), strict=True):
        assert sum(part.share for part in parts) / world == pytest.approx(1.0, abs=1e-12)
        expected = sum(losses[row] for row in batch.rows) / len(batch.rows)
        means = [sum(losses[row] for row in part.rows) / len(part.rows) for part in parts]
        averaged = sum(part.share * mean for part, mean in zip(parts, means, strict=True)) / world
        assert averaged == pytest.approx(expected, abs=1e-12)


def test_shares_by_hand():
    assert [epoch_of(5, 5, rank=rank, world=2)[0].share for rank in (0, 1)] == [6 / 5, 4 / 5]
    tail = [epoch_of(11, 8, rank=rank, world=2)[1] for rank in (0, 1)]  # three images, too few for two processes
    assert [(len(part.rows), part.share) for part in tail] == [(3, 1.0), (3, 1.0)]


def test_order_depends_only_on_seed_and_epoch():
    orders = {}
    for seed in (0, 1, 2):
        for epoch in (0, 1, 2):
            torch.manual_seed(seed + epoch)
            batches = TrainBatches(40, 8, seed)
            batches.set_epoch(epoch)
            orders[seed, epoch] = tuple(rows_of(batches))
            assert tuple(rows_of(batches)) == orders[seed, epoch]  # again, in the same epoch
    assert len(set(orders.values())) == 9
    state = torch.get_rng_state()
    assert tuple(rows_of(epoch_of(40, 8, 1, 2))) == orders[1, 2]
    assert torch.equal(torch.get_rng_state(), state)


def test_order_is_uniform():
    """Every image is first about equally often."""
    first = torch.tensor([epoch_of(6, 6, seed)[0].rows[0] for seed in range(1200)]).bincount(minlength=6).float()
    assert ((first - 200) ** 2 / 200).sum() < 25  # five degrees of freedom


# evaluation


@given(st.integers(0, 200), st.integers(1, 40), st.integers(1, 6))
def test_test_batches_are_distributed_as_a_whole(size, batch_size, world):
    whole = list(TestBatches(size, batch_size))
    assert [row for batch in whole for row in batch] == list(range(size))
    assert all(len(batch) == batch_size for batch in whole[:-1])
    ranks = [TestBatches(size, batch_size, rank, world) for rank in range(world)]
    for rank, batches in enumerate(ranks):
        assert len(batches) == len(list(batches))
        if rank < len(whole):
            assert list(batches) == whole[rank::world]


@given(st.integers(1, 200), st.integers(1, 40), st.integers(1, 6))
def test_rows_repeat_only_for_processes_without_a_batch(size, batch_size, world):
    assume(-(-size // batch_size) >= world)
    rows = [row for rank in range(world) for batch in TestBatches(size, batch_size, rank, world) for row in batch]
    assert sorted(rows) == list(range(size))


def test_processes_without_a_batch_repeat_the_last_one():
    """Lightning would stop at an empty loader; the metric drops the repeated samples."""
    assert [list(TestBatches(5, 3, rank, 4)) for rank in range(4)] == [[[0, 1, 2]], [[3, 4]], [[3, 4]], [[3, 4]]]


# a number of steps


@given(SIZE, BATCH, SEED, st.integers(1, 40))
def test_steps_are_consecutive_passes(size, batch_size, seed, steps):
    assume(size > 1)
    found = list(StepBatches(TrainBatches(size, batch_size, seed), steps))
    passes = [batch for epoch in range(steps) for batch in epoch_of(size, batch_size, seed, epoch)]
    assert found == passes[:steps] and len(found) == steps == len(
        StepBatches(TrainBatches(size, batch_size, seed), steps)
    )


@WORLDS
def test_steps_are_distributed_like_epochs(world):
    labels = [number // 3 for number in range(30)]
    for make in (
        lambda rank: TrainBatches(30, 7, 5, rank, world),
        lambda rank: IdentityBatches(labels, 8, 2, 5, rank, world),
    ):
        parts = [list(StepBatches(make(rank), 11)) for rank in range(world)]
        assert {len(part) for part in parts} == {11}
        whole = list(StepBatches(_alone(make), 11))
        assert [sorted(set(rows_of(step))) for step in zip(*parts, strict=True)] == [
            sorted(set(rows_of([batch]))) for batch in whole
        ]


def _alone(make):
    batches = make(0)
    batches.rank, batches.world = 0, 1
    return batches


def test_a_pass_without_a_batch_has_no_steps():
    empty = TrainBatches(5, 8, 0, skip_incomplete=True)
    assert len(StepBatches(empty, 3)) == 0 and list(StepBatches(empty, 3)) == []
