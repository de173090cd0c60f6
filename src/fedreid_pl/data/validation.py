"""Persons held out of a client's training images: a test set that may choose between rounds and settings."""

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

_LEAST = 2  # persons to train on, and to find one among


def hold_out_validation(
    config: DataConfig, parts: Sequence[Part], complete: bool = True
) -> tuple[list[Part], dict[str, TestSet]]:
    """Returns the parts without what is held out, and the validation sets by the name of the part.

    Args:
        config: of the data.
        parts: of the clients.
        complete: the run has no clients beside these. A silo sees its own client alone, and whether any silo has
            a validation set is known at the coordinator.

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
    """What is left to train on, and the validation set `val:NAME`.

    `share` of the identities, rounded but at least two, are drawn from (seed, name). All their images are the
    gallery; for every one that two cameras saw or more, one image per camera, drawn as well, is a query. A query
    stays in the gallery, where it is removed for itself with the rest of its camera: so a person with one image per
    camera can be looked for. Identities of one camera are there to be confused with.

    There is no validation set, and everything is left to train on, where fewer than two identities would remain or
    none that is held out was seen by two cameras.

    Args:
        name: of the client, or of its dataset where it has several.
        train: its training images; no identity is negative.
        share: of the identities, above 0.
        seed: of the draws.
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
    """A random row of every identity and camera, in row order, for the identities that several cameras saw."""
    order = state.permutation(len(table))
    pairs, rows = np.unique(np.stack([table.identities, table.cameras], 1)[order], axis=0, return_index=True)
    _, inverse, cameras = np.unique(pairs[:, 0], return_inverse=True, return_counts=True)
    return np.sort(order[rows[cameras[inverse] > 1]])
