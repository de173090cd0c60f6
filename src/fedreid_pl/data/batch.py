"""A training batch, as the client's step and the losses of callbacks see it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from fedreid_pl.functional.batch_part import BatchPart


class TrainBatch(NamedTuple):
    """The images of one step in this process, `B` of them.

    Args:
        images: `[B, 3, H, W]`; uint8 as they are read, float32 augmented and normalised in `training_step`.
        labels: `[B]` int64 in `0..identities-1` of the client.
        cameras: `[B]` int64, the dataset's own camera numbers.
        rows: `[B]` int64, the images' rows in the client's training table, the same in every round.
        share: factor of the mean loss of this part of a batch that is dealt out to several processes.
        part: where the images are in the whole batch; `None`: they are the whole batch.
    """

    images: Tensor
    labels: Tensor
    cameras: Tensor
    rows: Tensor
    share: float = 1.0
    part: BatchPart | None = None
