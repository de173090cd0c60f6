"""A training batch, the input of the client's training step and of the losses of callbacks."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from fedreid_pl.functional.batch_part import BatchPart


class TrainBatch(NamedTuple):
    """The `B` images of one training step in this process.

    Args:
        images: `[B, 3, H, W]`; uint8 after reading, augmented and normalised float32 in `training_step`.
        labels: `[B]` int64 in `0..identities-1` of the client.
        cameras: `[B]` int64, camera numbers of the dataset.
        rows: `[B]` int64, rows of the images in the client's training table, the same in every round.
        share: factor for the mean loss of this part, if the batch is split over several processes.
        part: positions of the images in the whole batch; `None`: the images are the whole batch.
    """

    images: Tensor
    labels: Tensor
    cameras: Tensor
    rows: Tensor
    share: float = 1.0
    part: BatchPart | None = None
