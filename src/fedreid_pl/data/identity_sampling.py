"""Batches of P identities with K images each, for losses that compare the images of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from fedreid_pl.data.sampling import BatchRows, deal
from fedreid_pl.functional.randomness import generator


class IdentityBatches:
    """P x K sampling (Hermans et al., 2017): every batch has P identities with K images each.

    P is `batch_size // instances`, or the number of identities if that is smaller. An epoch is about one pass over the
    images, drawn from (seed, epoch):

    - The images of an identity are shuffled and split into groups of K. Images beyond a multiple of K are not used in
      this epoch. An identity with fewer than K images repeats its images, each about equally often.
    - The number of batches of an epoch is the number of groups divided by P, rounded up. An identity with more groups
      than batches does not use the remaining groups in this epoch. Empty places are filled with additional groups of
      other identities. So every batch is full, has an identity at most once, and every identity is in some batch.

    With several processes, a batch is split by identities: each part has whole identities, so that every image keeps
    its positives, and at least two identities, so that it has negatives. If a batch has too few identities for that,
    every process computes the whole batch.

    Args:
        labels: identity of every row.
        batch_size: largest number of images per step over all processes.
        instances: K.
        seed: seed of the turn.
        rank, world: number of this process, and number of processes.
    """

    def __init__(
        self, labels: Sequence[int], batch_size: int, instances: int, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        rows: dict[int, list[int]] = {}
        for row, label in enumerate(labels):
            rows.setdefault(label, []).append(row)
        self.rows = list(rows.values())  # by identity
        self.instances, self.seed, self.rank, self.world = instances, seed, rank, world
        self.identities = min(max(batch_size // instances, 1), len(self.rows))
        self.groups = [max(len(own) // instances, 1) for own in self.rows]  # number of groups in one pass, by identity
        self.epoch = 0
        self.sampler = self  # Lightning calls `batch_sampler.sampler.set_epoch`

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch; Lightning calls this before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-sum(self.groups) // self.identities)

    def __iter__(self) -> Iterator[BatchRows]:
        draws = generator(self.seed, "identities", self.epoch)
        counts = self._counts(draws)
        groups = [self._grouped(own, count, draws) for own, count in zip(self.rows, counts, strict=True)]
        for identities in self._dealt(counts, draws):
            batch = [groups[identity].pop() for identity in identities]
            yield deal(batch, self.rank, self.world)

    def _counts(self, draws: torch.Generator) -> list[int]:
        """Returns the number of batches with each identity in this epoch; the sum is `len(self) * self.identities`."""
        length = len(self)
        counts = [min(count, length) for count in self.groups]
        empty = length * self.identities - sum(counts)
        while empty:  # add one group for every identity that is not yet in every batch
            order = torch.randperm(len(counts), generator=draws).tolist()
            for identity in [identity for identity in order if counts[identity] < length][:empty]:
                counts[identity] += 1
                empty -= 1
        return counts

    def _grouped(self, own: Sequence[int], count: int, draws: torch.Generator) -> list[list[int]]:
        """Returns `count` groups of K rows of one identity, from several shuffled passes over its images if needed."""
        size = self.instances
        groups: list[list[int]] = []
        while len(groups) < count:
            order = [own[place] for place in torch.randperm(len(own), generator=draws).tolist()]
            order *= -(-size // len(order)) if len(order) < size else 1
            groups += [order[start : start + size] for start in range(0, len(order) - size + 1, size)]
        return groups[:count]

    def _dealt(self, counts: Sequence[int], draws: torch.Generator) -> Iterator[list[int]]:
        """Yields the identities of every batch, drawn with probabilities proportional to their remaining batches.

        An identity that needs all remaining batches must be in the next one. With this rule a solution always exists.
        """
        left = torch.tensor(counts, dtype=torch.float64)
        for batches in range(len(self), 0, -1):
            due = left == batches
            chosen = due.nonzero()[:, 0]
            if len(chosen) < self.identities:
                others = torch.multinomial(left.masked_fill(due, 0.0), self.identities - len(chosen), generator=draws)
                chosen = torch.cat([chosen, others])
            left[chosen] -= 1.0
            yield chosen[torch.randperm(len(chosen), generator=draws)].tolist()
