"""The data of a federation: clients, test sets and the public set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from fedreid_pl.data.overlap_found import Overlap
from fedreid_pl.data.readable import BadImage
from fedreid_pl.data.samples import SampleTable
from fedreid_pl.errors import FedReIDError

VALIDATION = "val:"
"""Prefix of the names of validation sets; the name of a dataset must not begin with it."""


@dataclass(frozen=True)
class ClientData:
    """The data of a client: its training images and the names of its test sets.

    Its validation sets follow after the test sets in `tests`.

    Raises:
        FedReIDError: if the name begins with the prefix of validation sets, or if there are fewer than two training
            identities.
    """

    name: str
    train: SampleTable
    tests: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.name.startswith(VALIDATION):
            raise FedReIDError(
                f"client {self.name}: the prefix {VALIDATION} is reserved for validation sets; rename the folder"
            )
        if self.train.num_identities() < 2:
            raise FedReIDError(
                f"client {self.name}: {self.train.num_identities()} training identity in {self.train.root}, "
                "a classifier needs at least 2; add persons or remove the dataset from data.datasets"
            )


@dataclass(frozen=True)
class TestSet:
    """Query and gallery of one dataset.

    Raises:
        FedReIDError: if query or gallery is empty, a query shows no known person, or no query has a match in another
            camera.
    """

    __test__ = False  # pytest must not collect this class

    name: str
    query: SampleTable
    gallery: SampleTable

    def __post_init__(self) -> None:
        if not len(self.query) or not len(self.gallery):
            raise FedReIDError(
                f"{self.name}: {len(self.query)} queries and {len(self.gallery)} gallery images in {self.query.root}"
            )
        unknown = np.flatnonzero(self.query.identities < 0)
        if len(unknown):
            raise FedReIDError(f"{self.query.files()[unknown[0]]}: a query must show a known person; remove this file")
        if len(self.unmatched) == len(self.query):
            raise FedReIDError(
                f"{self.name}: no query in {self.query.root} has a gallery image of the same person in another camera, "
                f"for example {self.query.files()[0]}"
            )

    @cached_property
    def unmatched(self) -> np.ndarray:
        """Rows of the queries without a gallery image of the same person in another camera."""
        gallery = self.gallery.take(np.flatnonzero(self.gallery.identities >= 0))
        if not len(gallery):
            return np.arange(len(self.query))
        cameras = 1 + int(max(self.query.cameras.max(), gallery.cameras.max()))
        known, persons = np.unique(np.concatenate([gallery.identities, self.query.identities]), return_inverse=True)
        seen, asked = persons[: len(gallery)], persons[len(gallery) :]
        images = np.bincount(seen, minlength=len(known))
        places, counts = np.unique(seen * cameras + gallery.cameras, return_counts=True)
        own = asked * cameras + self.query.cameras
        at = np.searchsorted(places, own).clip(max=len(places) - 1)
        same_camera = np.where(places[at] == own, counts[at], 0)
        return np.flatnonzero(images[asked] == same_camera)


@dataclass(frozen=True)
class FederatedData:
    """All clients, every test set once, and the unlabelled public set of the server, if there is one.

    Args:
        clients, tests: by name, in the order of the configuration; validation sets follow after the test sets.
        public: images without labels, or `None`.
        unvalidated: clients without a validation set, although `data.val_ids` is set.
        digests: digest of every dataset, see `data.digest`.
        datasets: the tables of whole datasets, from which the other tables are taken.
        remarks: remarks on the files for the user, one line each.
        left_out: unreadable images by dataset, if they are skipped.
        synthetic: whether this program drew all images, according to their files and the manifest.
        overlaps: images and persons that are in two places.
        unread_folders: one line for every folder of `data.root` that is not a dataset.
        unseen: test sets of the datasets in `data.leave_out`; they belong to no client.
    """

    clients: Mapping[str, ClientData]
    tests: Mapping[str, TestSet]
    public: SampleTable | None = field(default=None)
    unvalidated: tuple[str, ...] = ()
    digests: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    datasets: tuple[SampleTable, ...] = ()
    remarks: tuple[str, ...] = ()
    left_out: Mapping[str, list[BadImage]] = field(default_factory=dict)
    synthetic: bool = False
    overlaps: tuple[Overlap, ...] = ()
    unread_folders: tuple[str, ...] = ()
    unseen: Mapping[str, TestSet] = field(default_factory=dict)

    def tests_of(self, client: str) -> dict[str, TestSet]:
        """Returns the test sets of a client by name."""
        return {name: self.tests[name] for name in self.clients[client].tests}

    def tables(self) -> Iterable[SampleTable]:
        """Yields every table that a run reads."""
        for client in self.clients.values():
            yield client.train
        for test in (*self.tests.values(), *self.unseen.values()):
            yield test.query
            yield test.gallery
