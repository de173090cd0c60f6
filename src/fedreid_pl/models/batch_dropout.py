"""Dropout with the same masks for any number of processes."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from fedreid_pl.functional.batch_part import current_part


class BatchDropout(nn.Dropout):
    """Dropout whose mask is drawn for the whole batch, of which a process uses the rows of its own images.

    With equally seeded generators in all processes an image is treated as in a batch of one process. Where no part of
    a batch is announced (`working_on`) it is torch's Dropout.

    >>> import torch
    >>> torch.equal(BatchDropout(0.5).eval()(torch.ones(2, 3)), torch.ones(2, 3))
    True
    """

    def forward(self, features: Tensor) -> Tensor:
        """`[B, ...]` -> the same shape, some values zero and the others larger."""
        part = current_part()
        if part is None or not self.training:
            return super().forward(features)
        mask = F.dropout(features.new_ones(part.total, *features.shape[1:]), self.p)
        return features * mask[list(part.places)]
