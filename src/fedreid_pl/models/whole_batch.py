"""Numbers of every image of a batch that is dealt out to several processes."""

from __future__ import annotations

import torch
from torch import Tensor, distributed

from fedreid_pl.functional.batch_part import current_part


@torch.no_grad()
def of_whole_batch(rows: Tensor) -> Tensor:
    """Returns the rows of all images of the batch `[total, ...]` in the order of the whole batch, without gradients.

    Every process has to call it in the same step. Where no part of a batch is announced (`working_on`), `rows` is
    returned as it is.

    Args:
        rows: `[B, ...]` float, one row for every image of this process.

    >>> of_whole_batch(torch.ones(2, 1)).shape
    torch.Size([2, 1])
    """
    part = current_part()
    if part is None:
        return rows
    whole = rows.new_zeros(part.total, *rows.shape[1:])
    whole[list(part.places)] = rows.detach()
    distributed.all_reduce(whole)  # every row is of one process, zero in the others
    return whole


def images_of_whole_batch(rows: Tensor) -> tuple[int, list[int]]:
    """(images of the whole batch, places of this process's `rows` in it): what random choices are drawn for.

    >>> images_of_whole_batch(torch.ones(3, 1))
    (3, [0, 1, 2])
    """
    part = current_part()
    return (len(rows), list(range(len(rows)))) if part is None else (part.total, list(part.places))
