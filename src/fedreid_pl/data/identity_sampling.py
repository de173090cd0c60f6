"""Batches of P identities with K images each, for losses that compare images of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from fedreid_pl.data.sampling import BatchRows, deal
from fedreid_pl.functional.randomness import generator


class IdentityBatches:
    """P x K sampling (Hermans et al., 2017): every batch holds P identities with K images each.

    P is `batch_size // instances`, or the number of identities where there are fewer. An epoch is about one pass
    over the images, drawn from (seed, epoch):

    - An identity gives its images in shuffled groups of K. Those beyond a multiple of K are left to other epochs;
      an identity with fewer than K images repeats them, each about equally often.
    - An epoch has as many batches as it takes to use all groups, P at a time. An identity with more groups than
      that leaves some to other epochs, and places that stay empty go to further groups of other identities. So
      every batch is full, an identity is in it at most once, and every identity is in some batch.

    Parts for several processes are whole identities, so that every image keeps its positives, and at least two of
    them, so that it has negatives. A batch with too few identities for that is computed whole by every process.

    Args:
        labels: identity of every row.
        batch_size: images per step over all processes, at most.
        instances: K.
        seed: of the turn.
        rank, world: this process and how many there are.
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
        self.groups = [max(len(own) // instances, 1) for own in self.rows]  # in one pass, by identity
        self.epoch = 0
        self.sampler = self  # Lightning announces the epoch to `batch_sampler.sampler`

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before every epoch."""
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
        """In how many batches of the epoch every identity is; they add up to `len(self) * self.identities`."""
        length = len(self)
        counts = [min(count, length) for count in self.groups]
        empty = length * self.identities - sum(counts)
        while empty:  # one more for those that are not in every batch yet, in turn
            order = torch.randperm(len(counts), generator=draws).tolist()
            for identity in [identity for identity in order if counts[identity] < length][:empty]:
                counts[identity] += 1
                empty -= 1
        return counts

    def _grouped(self, own: Sequence[int], count: int, draws: torch.Generator) -> list[list[int]]:
        """`count` groups of K rows of one identity, from as many shuffled passes over its images as it takes."""
        size = self.instances
        groups: list[list[int]] = []
        while len(groups) < count:
            order = [own[place] for place in torch.randperm(len(own), generator=draws).tolist()]
            order *= -(-size // len(order)) if len(order) < size else 1
            groups += [order[start : start + size] for start in range(0, len(order) - size + 1, size)]
        return groups[:count]

    def _dealt(self, counts: Sequence[int], draws: torch.Generator) -> Iterator[list[int]]:
        """The identities of every batch: at random, by how many batches each still needs.

        Whoever needs all batches that are left has to be in the next one; then the rest always works out.
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
