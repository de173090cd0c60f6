"""The part of a batch that this process works on: random draws do not depend on the number of processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple


class BatchPart(NamedTuple):
    """One process's part of a batch that is split over several processes.

    Every process draws the random numbers of the whole batch and then takes those of its own images:

    >>> import torch
    >>> factors = torch.arange(5.0)
    >>> factors[list(BatchPart((1, 3), total=5).places)]
    tensor([1., 3.])

    Args:
        places: positions of the part's images in the whole batch.
        total: number of images in the whole batch.
    """

    places: tuple[int, ...]
    total: int


_current: ContextVar[BatchPart | None] = ContextVar("batch_part", default=None)


def current_part() -> BatchPart | None:
    """Returns the part that `working_on` has set, or `None` if this process has the whole batch."""
    return _current.get()


@contextmanager
def working_on(part: BatchPart | None) -> Iterator[None]:
    """Returns a context in which layers that use the whole batch (synchronised norm, dropout) know this part of it."""
    token = _current.set(part)
    try:
        yield
    finally:
        _current.reset(token)
