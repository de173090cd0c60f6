"""Leave one domain out: the datasets of `data.leave_out` are used for tests only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from fedreid_pl.config import DataConfig
from fedreid_pl.data.samples import TRAIN, SampleTable
from fedreid_pl.errors import FedReIDError, nearest, printable


def unseen_names(config: DataConfig) -> tuple[str, ...]:
    """Returns the names in `data.leave_out`, in order.

    Raises:
        FedReIDError: if a name is empty or is given twice.

    >>> unseen_names(DataConfig(leave_out="GRID, VIPeR"))
    ('GRID', 'VIPeR')
    """
    if config.leave_out is None:
        return ()
    names = tuple(part.strip() for part in config.leave_out.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise FedReIDError(
            f"data.leave_out={printable(config.leave_out)}: give each dataset once, as NAME or NAME,NAME; null leaves "
            "out none"
        )
    return names


def check_left_out(config: DataConfig, names: Iterable[str]) -> None:
    """Raises an error if a name in `data.leave_out` is not a dataset, or if all datasets are left out.

    Args:
        config: the `data` section.
        names: names of the datasets that would be clients.

    Raises:
        FedReIDError: for an unknown name (with the nearest name), or if no client is left.
    """
    known, out = list(names), unseen_names(config)
    for name in out:
        if name not in known:
            raise FedReIDError(f"data.leave_out={printable(name)}: no such dataset{nearest(name, known)}")
    if out and len(out) == len(known):
        raise FedReIDError(
            f"data.leave_out={printable(config.leave_out or '')}: leaves out every dataset, and no client is left to "
            "train; add datasets to data.datasets or leave out fewer"
        )


def without_training(table: SampleTable) -> SampleTable:
    """Returns the query and gallery rows of a dataset, without its training images.

    The result has no inventory, because the counts of files belong to the whole folder.
    """
    return replace(table.take(np.flatnonzero(table.splits != TRAIN)), remarks=table.remarks, found=table.found)
