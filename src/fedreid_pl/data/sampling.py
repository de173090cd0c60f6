"""Which images make a batch, the same for any number of processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Protocol

import torch

from fedreid_pl.functional.batch_part import BatchPart
from fedreid_pl.functional.randomness import generator


@dataclass(frozen=True)
class BatchRows:
    """Rows of one process's part of a batch.

    Args:
        rows: indices into the client's training table.
        share: `len(rows) * processes / size of the whole batch`: the factor with which the mean loss of this
            part has to be multiplied so that the mean over processes is the mean over the whole batch.
        part: where the rows are in the whole batch; `None`: they are the whole batch.
    """

    rows: tuple[int, ...]
    share: float = 1.0
    part: BatchPart | None = None


def deal(groups: Sequence[Sequence[int]], rank: int, world: int) -> BatchRows:
    """Part `rank` of a batch that consists of groups of rows: the groups are dealt to the processes in turn.

    With fewer than two groups for every process the batch is not dealt out: each gets the whole.

    >>> deal([[7], [3], [5], [9], [2]], rank=1, world=2)
    BatchRows(rows=(3, 9), share=0.8, part=BatchPart(places=(1, 3), total=5))
    """
    rows = tuple(row for group in groups for row in group)
    if world == 1 or len(groups) < 2 * world:
        return BatchRows(rows)
    owners = [number % world for number, group in enumerate(groups) for _ in group]
    places = tuple(place for place, owner in enumerate(owners) if owner == rank)
    own = tuple(rows[place] for place in places)
    return BatchRows(own, len(own) * world / len(rows), BatchPart(places, len(rows)))


class Passes(Protocol):
    """Batches of one pass over a client's images."""

    def set_epoch(self, epoch: int) -> None:
        """Chooses which pass of the turn is iterated over."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[BatchRows]: ...


class TrainBatches:
    """Shuffled batches of a turn; `batch_size` counts the images of all processes together.

    Every epoch visits each image once, in an order drawn from (seed, epoch). Parts of a batch go to the
    processes in turn; a batch too small to give each of them the two images that BatchNorm needs is computed
    whole by every process, which leaves its gradient and statistics right. A last batch of a single image is
    left out.

    Args:
        size: number of images.
        batch_size: images per step over all processes.
        seed: of the turn.
        rank, world: this process and how many there are.
        skip_incomplete: whether a last batch of fewer than `batch_size` images is left out.
    """

    def __init__(
        self, size: int, batch_size: int, seed: int, rank: int = 0, world: int = 1, skip_incomplete: bool = False
    ) -> None:
        self.size, self.batch_size, self.seed, self.skip_incomplete = size, batch_size, seed, skip_incomplete
        self.rank, self.world = rank, world
        self.epoch = 0
        self.sampler = self  # Lightning announces the epoch to `batch_sampler.sampler`

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        full, rest = divmod(self.size, self.batch_size)
        return full + (rest > 1 and not self.skip_incomplete)

    def __iter__(self) -> Iterator[BatchRows]:
        order = torch.randperm(self.size, generator=generator(self.seed, "order", self.epoch)).tolist()
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            rows = order[start : start + self.batch_size]
            yield deal([(row,) for row in rows], self.rank, self.world)


class StepBatches:
    """So many batches of a turn, from passes over the images that follow each other; a turn is one epoch of these.

    Args:
        batches: those of a pass; pass 0, 1, ... of the turn is its epoch 0, 1, ...
        steps: how many; none of an empty pass.
    """

    def __init__(self, batches: Passes, steps: int) -> None:
        self.batches, self.steps = batches, steps
        self.sampler = self

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before the only epoch; the passes are counted here."""

    def __len__(self) -> int:
        return self.steps if len(self.batches) else 0

    def __iter__(self) -> Iterator[BatchRows]:
        return islice(self._endless(), len(self))

    def _endless(self) -> Iterator[BatchRows]:
        for number in count():
            self.batches.set_epoch(number)
            yield from self.batches


class TestBatches:
    """Consecutive batches in row order; process `rank` takes every `world`-th batch, none twice.

    Whole batches are dealt out, not images, so that the network sees the same batches, and rounds the same,
    for any number of processes. With fewer batches than processes, those left without one repeat the last
    batch: Lightning refuses an empty loader, and the metric drops repeats by their row numbers.
    """

    __test__ = False  # pytest: not a test class

    def __init__(self, size: int, batch_size: int, rank: int = 0, world: int = 1) -> None:
        self.sampler = range(size)  # some versions of Lightning look for `batch_sampler.sampler`
        batches = [list(range(start, min(start + batch_size, size))) for start in range(0, size, batch_size)]
        self.batches = batches[rank::world] or batches[-1:]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)
