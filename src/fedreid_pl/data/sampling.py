"""Samplers of training and test batches; the batches are the same for any number of processes."""

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
        share: `len(rows) * processes / size of the whole batch`, the factor for the mean loss of this part. With it,
            the mean over processes is the mean over the whole batch.
        part: positions of the rows in the whole batch; `None`: the rows are the whole batch.
    """

    rows: tuple[int, ...]
    share: float = 1.0
    part: BatchPart | None = None


def deal(groups: Sequence[Sequence[int]], rank: int, world: int) -> BatchRows:
    """Returns part `rank` of a batch of groups of rows; the processes get the groups in turn.

    If there are fewer than two groups per process, the batch is not split, and every process gets the whole batch.

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
        """Sets the number of the pass for the next iteration."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[BatchRows]: ...


class TrainBatches:
    """Shuffled batches of a turn; `batch_size` counts the images of all processes together.

    Every epoch visits each image once, in an order drawn from (seed, epoch). The images of a batch are assigned to the
    processes in turn. BatchNorm needs at least two images per process. If a batch is too small for that, every process
    computes the whole batch, so that gradient and statistics are correct. A last batch of a single image is left out.

    Args:
        size: number of images.
        batch_size: images per step over all processes.
        seed: seed of the turn.
        rank, world: number of this process, and number of processes.
        skip_incomplete: whether a last batch of fewer than `batch_size` images is left out.
    """

    def __init__(
        self, size: int, batch_size: int, seed: int, rank: int = 0, world: int = 1, skip_incomplete: bool = False
    ) -> None:
        self.size, self.batch_size, self.seed, self.skip_incomplete = size, batch_size, seed, skip_incomplete
        self.rank, self.world = rank, world
        self.epoch = 0
        self.sampler = self  # Lightning calls `batch_sampler.sampler.set_epoch`

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch; Lightning calls this before every epoch."""
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
    """A fixed number of batches per turn, from consecutive passes over the images. Lightning sees one epoch.

    Args:
        batches: batches of one pass; pass 0, 1, ... of the turn is its epoch 0, 1, ...
        steps: number of batches; 0 if a pass has no batch.
    """

    def __init__(self, batches: Passes, steps: int) -> None:
        self.batches, self.steps = batches, steps
        self.sampler = self

    def set_epoch(self, epoch: int) -> None:
        """Does nothing: Lightning has only one epoch per turn, and this class counts the passes itself."""

    def __len__(self) -> int:
        return self.steps if len(self.batches) else 0

    def __iter__(self) -> Iterator[BatchRows]:
        return islice(self._endless(), len(self))

    def _endless(self) -> Iterator[BatchRows]:
        for number in count():
            self.batches.set_epoch(number)
            yield from self.batches


class TestBatches:
    """Consecutive batches in row order; process `rank` gets every `world`-th batch.

    Processes get whole batches, not images, so that the network has the same batches and the same rounding for any
    number of processes. If there are fewer batches than processes, the remaining processes repeat the last batch,
    because Lightning does not accept an empty loader. The metric drops repeats by their row numbers.
    """

    __test__ = False  # pytest must not collect this class

    def __init__(self, size: int, batch_size: int, rank: int = 0, world: int = 1) -> None:
        self.sampler = range(size)  # some versions of Lightning look for `batch_sampler.sampler`
        batches = [list(range(start, min(start + batch_size, size))) for start in range(0, size, batch_size)]
        self.batches = batches[rank::world] or batches[-1:]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)
