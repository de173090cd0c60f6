"""Values of all images of a batch that is split over several processes."""

from __future__ import annotations

import torch
from torch import Tensor, distributed

from fedreid_pl.functional.batch_part import current_part


@torch.no_grad()
def of_whole_batch(rows: Tensor) -> Tensor:
    """Returns the rows of all images of the batch `[total, ...]` in the order of the whole batch, without gradients.

    Every process must call the function in the same step. If `working_on` has not set a part of a batch, the function
    returns `rows` unchanged.

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
    distributed.all_reduce(whole)  # every row is nonzero in one process only
    return whole


def images_of_whole_batch(rows: Tensor) -> tuple[int, list[int]]:
    """Returns the number of images in the whole batch and the positions of this process's `rows` in it.

    Callers draw random numbers for the whole batch and use those at these positions.

    >>> images_of_whole_batch(torch.ones(3, 1))
    (3, [0, 1, 2])
    """
    part = current_part()
    return (len(rows), list(range(len(rows)))) if part is None else (part.total, list(part.places))
