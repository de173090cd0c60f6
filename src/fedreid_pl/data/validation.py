"""Validation sets: persons held out of a client's training images, to select rounds and settings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedreid_pl.config import DataConfig
from fedreid_pl.data.federated import VALIDATION, TestSet
from fedreid_pl.data.readers.drawn_split import random_state, shuffled
from fedreid_pl.data.samples import SampleTable
from fedreid_pl.errors import FedReIDError

Part = tuple[str, str, SampleTable]
"""Name of a client (or of a dataset that becomes a part of one), its test set, its training images."""

_LEAST = 2  # smallest number of persons for training, and for validation


def hold_out_validation(
    config: DataConfig, parts: Sequence[Part], complete: bool = True
) -> tuple[list[Part], dict[str, TestSet]]:
    """Returns the parts without the held-out persons, and the validation sets by the name of the part.

    Args:
        config: the `data` section.
        parts: training images of the clients.
        complete: whether these are all clients of the run. A silo has only its own client, and only the coordinator
            knows whether any silo has a validation set.

    Raises:
        FedReIDError: if no part of a complete run gets a validation set.
    """
    left: list[Part] = []
    validation: dict[str, TestSet] = {}
    for name, test, train in parts:
        rest, held_out = hold_out_identities(name, train, config.val_ids, config.split_seed)
        left.append((name, test, rest))
        if held_out is not None:
            validation[name] = held_out
    if complete and not validation:
        raise no_validation(config.val_ids)
    return left, validation


def no_validation(share: float) -> FedReIDError:
    """Returns the error of a run in which `data.val_ids=SHARE` gives no client a validation set."""
    return FedReIDError(
        f"data.val_ids={share}: no client has enough training persons seen by two cameras to hold some out; "
        "data.val_ids=0 does without validation"
    )


def hold_out_identities(name: str, train: SampleTable, share: float, seed: int) -> tuple[SampleTable, TestSet | None]:
    """Returns the remaining training images and the validation set `val:NAME`, or `None` if there is none.

    The share `share` of the identities (rounded, at least two) is drawn from (seed, name). All their images form the
    gallery. For every identity in at least two cameras, one random image per camera is a query. A query is also in the
    gallery; the evaluation removes it together with the other images of its person and camera. So persons with one
    image per camera can be queries. Identities in only one camera make the ranking harder.

    There is no validation set if fewer than two training identities would remain, or if no held-out identity is in two
    cameras. Then all images are used for training.

    Args:
        name: name of the client, or of its dataset if the client has several.
        train: training images of the client; no identity is negative.
        share: share of the identities, above 0.
        seed: seed of the draws.
    """
    persons = np.unique(train.identities)
    held_out = max(_LEAST, round(share * len(persons)))
    if len(persons) - held_out < _LEAST:
        return train, None
    state = random_state(seed, name, "validation")
    chosen = np.isin(train.identities, shuffled(persons.tolist(), state)[:held_out])
    gallery = train.take(np.flatnonzero(chosen))
    queries = gallery.take(_one_per_camera(gallery, state))
    if not len(queries):
        return train, None
    return train.take(np.flatnonzero(~chosen)), TestSet(VALIDATION + name, queries, gallery)


def _one_per_camera(table: SampleTable, state: np.random.RandomState) -> np.ndarray:
    """Returns a random row of every identity and camera, in row order, for identities in several cameras."""
    order = state.permutation(len(table))
    pairs, rows = np.unique(np.stack([table.identities, table.cameras], 1)[order], axis=0, return_index=True)
    _, inverse, cameras = np.unique(pairs[:, 0], return_inverse=True, return_counts=True)
    return np.sort(order[rows[cameras[inverse] > 1]])
