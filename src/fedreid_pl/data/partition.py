"""Partitions of a dataset's training images into several clients."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fedreid_pl.data.readers.drawn_split import random_state
from fedreid_pl.data.samples import SampleTable


def by_camera(train: SampleTable) -> Iterator[tuple[str, SampleTable]]:
    """Yields one client per camera, in ascending order of camera numbers: `("market-cam1", rows of camera 1)`.

    This is the edge-cloud architecture of the paper ("federated-by-camera"). A person that two cameras see is a
    separate identity in each of the two clients.
    """
    for camera in np.unique(train.cameras):
        yield f"{train.name}-cam{camera}", train.take(np.flatnonzero(train.cameras == camera))


def by_identity(train: SampleTable, parts: int | None = None, seed: int = 0) -> Iterator[tuple[str, SampleTable]]:
    """Yields clients with disjoint groups of identities; the default number of groups is the number of cameras.

    This is the control experiment of the paper ("federated-by-identity"): as many clients as by camera, but each has
    images of all cameras. The order of identities is drawn from (seed, dataset). Group sizes differ by at most one, and
    no identity is dropped (the published code drops the remainder).

    Raises:
        ValueError: if there are fewer identities than parts.
    """
    persons = np.unique(train.identities)
    parts = parts or len(np.unique(train.cameras))
    if parts > len(persons):
        raise ValueError(f"{len(persons)} identities cannot be split over {parts} clients")
    order = random_state(seed, train.name, "by_identity").permutation(len(persons))
    for number, group in enumerate(np.array_split(persons[order], parts), 1):
        yield f"{train.name}-ids{number}", train.take(np.flatnonzero(np.isin(train.identities, group)))


def without_first_images(train: SampleTable) -> SampleTable:
    """Returns the training images without the first image of every identity that has several (in row order).

    This corresponds to the published code without `--train_all`. There, the first file depends on the file system, and
    identities with a single image are lost.
    """
    _, first, counts = np.unique(train.identities, return_index=True, return_counts=True)
    kept = np.ones(len(train), dtype=bool)
    kept[first[counts > 1]] = False
    return train.take(np.flatnonzero(kept))
