"""How one dataset's training images are dealt out to several clients, and what is held out of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fedreid_pl.data.readers.drawn_split import random_state
from fedreid_pl.data.samples import SampleTable


def by_camera(train: SampleTable) -> Iterator[tuple[str, SampleTable]]:
    """One client per camera, in ascending order of the camera's number: `("market-cam1", rows of camera 1)`.

    The paper's edge-cloud architecture ("federated-by-camera"). A person seen by two cameras is an identity of
    two clients, which do not know of each other.
    """
    for camera in np.unique(train.cameras):
        yield f"{train.name}-cam{camera}", train.take(np.flatnonzero(train.cameras == camera))


def by_identity(train: SampleTable, parts: int | None = None, seed: int = 0) -> Iterator[tuple[str, SampleTable]]:
    """Disjoint groups of identities, as many as there are cameras unless `parts` says otherwise.

    The paper's control ("federated-by-identity"): as many clients as by camera, but each sees all cameras.
    Identities are dealt out in an order drawn from (seed, dataset); group sizes differ by one at most and no
    identity is dropped (the published code drops the remainder).

    Raises:
        ValueError: if there are fewer identities than parts.
    """
    persons = np.unique(train.identities)
    parts = parts or len(np.unique(train.cameras))
    if parts > len(persons):
        raise ValueError(f"{len(persons)} identities cannot be dealt out to {parts} clients")
    order = random_state(seed, train.name, "by_identity").permutation(len(persons))
    for number, group in enumerate(np.array_split(persons[order], parts), 1):
        yield f"{train.name}-ids{number}", train.take(np.flatnonzero(np.isin(train.identities, group)))


def without_first_images(train: SampleTable) -> SampleTable:
    """All but the first image, in row order, of every identity that has more than one.

    The published code without `--train_all`; there the first file met was machine dependent, and an identity
    with a single image was lost.
    """
    _, first, counts = np.unique(train.identities, return_index=True, return_counts=True)
    kept = np.ones(len(train), dtype=bool)
    kept[first[counts > 1]] = False
    return train.take(np.flatnonzero(kept))
