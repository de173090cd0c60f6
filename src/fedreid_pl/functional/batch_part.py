"""Which images of a dealt-out batch are this process's, so that what is drawn does not depend on the processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple


class BatchPart(NamedTuple):
    """One process's part of a batch that is dealt out to several.

    Random choices are drawn for the whole batch by every process, which then takes its own:

    >>> import torch
    >>> factors = torch.arange(5.0)
    >>> factors[list(BatchPart((1, 3), total=5).places)]
    tensor([1., 3.])

    Args:
        places: of the part's images within the whole batch.
        total: images of the whole batch.
    """

    places: tuple[int, ...]
    total: int


_current: ContextVar[BatchPart | None] = ContextVar("batch_part", default=None)


def current_part() -> BatchPart | None:
    """What `working_on` announced; `None`: the images at hand are all there are."""
    return _current.get()


@contextmanager
def working_on(part: BatchPart | None) -> Iterator[None]:
    """Within it, layers that know of the whole batch (synchronised norm, dropout) work on this part of it."""
    token = _current.set(part)
    try:
        yield
    finally:
        _current.reset(token)
