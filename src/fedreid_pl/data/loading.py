"""A loader of batches in the order of a sampler; all loaders of a process share the reading threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import Any, Protocol

import torch


class Batched(Protocol):
    """A dataset that returns whole batches."""

    def __getitems__(self, rows: Any) -> Any:
        """Returns the batch of the given rows."""
        ...


class BatchLoader:
    """Iterates over `dataset.__getitems__(rows)` for the rows of every batch of a sampler.

    Only one client trains at a time, so all loaders share the same threads. No thread is started for a turn. If the
    iteration ends early, batches whose reading has not started are cancelled.

    Args:
        dataset: returns whole batches; several threads may call it at the same time.
        batch_sampler: yields the rows of every batch; Lightning sets the epoch of its `sampler`.
        readers: threads that read batches in advance; `None` reads a batch when it is needed.
        ahead: number of batches that are read in advance.
    """

    def __init__(
        self, dataset: Batched, batch_sampler: Sequence[Any], readers: Executor | None = None, ahead: int = 4
    ) -> None:
        self.dataset, self.batch_sampler, self.readers, self.ahead = dataset, batch_sampler, readers, ahead

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Any]:
        # torch's DataLoader draws this number too: dropout and others then draw the same numbers as with a DataLoader.
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
