"""Dropout with the same masks for any number of processes."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from fedreid_pl.functional.batch_part import current_part


class BatchDropout(nn.Dropout):
    """Dropout with a mask that is drawn for the whole batch; each process uses the rows of its own images.

    With equally seeded generators in all processes, every image gets the mask that it would get in a single process.
    If `working_on` has not set a part of a batch, the layer is torch's Dropout.

    >>> import torch
    >>> torch.equal(BatchDropout(0.5).eval()(torch.ones(2, 3)), torch.ones(2, 3))
    True
    """

    def forward(self, features: Tensor) -> Tensor:
        """Returns features of the same shape `[B, ...]`; in training some values are zero and the others scaled up."""
        part = current_part()
        if part is None or not self.training:
            return super().forward(features)
        mask = F.dropout(features.new_ones(part.total, *features.shape[1:]), self.p)
        return features * mask[list(part.places)]
