"""Prefetched batches equal batches read one by one, and prefetching is bounded."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from fedreid_pl.data.loading import BatchLoader
from fedreid_pl.errors import FedReIDError


class Squares:
    """A source that is slow for every third batch and records all requests."""

    def __init__(self, broken: int | None = None) -> None:
        self.asked: list[tuple[int, ...]] = []
        self.threads: set[str] = set()
        self.broken = broken

    def __getitems__(self, rows: tuple[int, ...]) -> list[int]:
        self.asked.append(rows)
        self.threads.add(threading.current_thread().name)
        if self.broken in rows:
            raise FedReIDError("row is broken")
        time.sleep(0.01 if rows[0] % 3 == 0 else 0)
        return [row * row for row in rows]


BATCHES = [(start, start + 1) for start in range(0, 40, 2)]


def test_batches_have_the_order_of_the_sampler() -> None:
    with ThreadPoolExecutor(4) as readers:
        dataset = Squares()
        loader = BatchLoader(dataset, BATCHES, readers, ahead=3)
        assert len(loader) == 20
        for _ in range(2):
            assert list(loader) == [[a * a, b * b] for a, b in BATCHES] == list(BatchLoader(Squares(), BATCHES))
        assert threading.current_thread().name not in dataset.threads


def test_without_readers_each_batch_is_read_on_request() -> None:
    dataset = Squares()
    batches = iter(BatchLoader(dataset, BATCHES))
    for number in range(1, 4):
        next(batches)
        assert dataset.asked == BATCHES[:number]
    assert dataset.threads == {threading.current_thread().name}


def test_prefetching_is_bounded_and_stops_after_the_loop() -> None:
    with ThreadPoolExecutor(1) as readers:
        dataset = Squares()
        for number, _ in enumerate(BatchLoader(dataset, BATCHES, readers, ahead=2), start=1):
            assert len(dataset.asked) <= number + 2
            if number == 3:
                break
        readers.submit(int).result()
        assert len(dataset.asked) <= 6
        seen = len(dataset.asked)
        time.sleep(0.05)
        assert len(dataset.asked) == seen


def test_an_error_is_raised_at_the_position_of_its_batch() -> None:
    with ThreadPoolExecutor(2) as readers:
        batches = iter(BatchLoader(Squares(broken=6), BATCHES, readers))
        assert [next(batches) for _ in range(3)] == [[0, 1], [4, 9], [16, 25]]
        with pytest.raises(FedReIDError, match="row is broken"):
            next(batches)


def test_random_numbers_continue_as_after_a_dataloader() -> None:
    drawn = []
    for loader in (BatchLoader(Squares(), BATCHES), torch.utils.data.DataLoader(range(4))):
        torch.manual_seed(3)
        list(loader)
        drawn.append(torch.rand(3).tolist())
    assert drawn[0] == drawn[1]
