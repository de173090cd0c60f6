"""Batches in the order of a sampler, read ahead by threads that all loaders of a process share."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import Any, Protocol

import torch


class Batched(Protocol):
    """A dataset that gives whole batches."""

    def __getitems__(self, rows: Any) -> Any:
        """The batch of these rows."""
        ...


class BatchLoader:
    """Iterates over `dataset.__getitems__(rows)` for the rows of every batch of a sampler.

    Only one client trains at a time, so threads that belong to nobody serve all: none is started for a turn, and none
    waits between two turns. A loader that is left early drops what was not begun.

    Args:
        dataset: gives whole batches; its method may be called by several threads at once.
        batch_sampler: its `sampler` is told the epoch by Lightning.
        readers: read ahead; `None`: a batch is read when it is asked for.
        ahead: batches that are read or waiting at a time.
    """

    def __init__(
        self, dataset: Batched, batch_sampler: Sequence[Any], readers: Executor | None = None, ahead: int = 4
    ) -> None:
        self.dataset, self.batch_sampler, self.readers, self.ahead = dataset, batch_sampler, readers, ahead

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Any]:
        # As torch's DataLoader does, so that what draws after it, such as dropout, draws the same numbers as with one.
        torch.empty((), dtype=torch.int64).random_()
        if self.readers is None:
            yield from map(self.dataset.__getitems__, self.batch_sampler)
            return
        waiting: deque[Future] = deque()
        try:
            for rows in self.batch_sampler:
                waiting.append(self.readers.submit(self.dataset.__getitems__, rows))
                if len(waiting) > self.ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for batch in waiting:
                batch.cancel()
