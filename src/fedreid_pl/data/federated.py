"""Who trains on what and what is evaluated: clients, test sets and the public set of a federation."""

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
"""What the name of a validation set begins with, and that of no dataset."""


@dataclass(frozen=True)
class ClientData:
    """One party: its training images and the names of the test sets that its models are evaluated on.

    Validation sets are among them, after the others.
    """

    name: str
    train: SampleTable
    tests: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.name.startswith(VALIDATION):
            raise FedReIDError(f"client {self.name}: {VALIDATION} marks validation sets; give its folder another name")
        if self.train.num_identities() < 2:
            raise FedReIDError(
                f"client {self.name}: {self.train.num_identities()} training identity in {self.train.root}, "
                "a classifier needs at least 2; add persons or leave the dataset out with data.datasets"
            )


@dataclass(frozen=True)
class TestSet:
    """Query and gallery of one dataset.

    Raises:
        FedReIDError: if a side is empty, a query carries no person, or no query has a match in another camera.
    """

    __test__ = False  # pytest: not a test class

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
            raise FedReIDError(f"{self.query.files()[unknown[0]]}: a query has to show a known person")
        if len(self.unmatched) == len(self.query):
            raise FedReIDError(
                f"{self.name}: no query in {self.query.root} has a gallery image of the same person in another camera, "
                f"not even {self.query.files()[0]}"
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
    """All parties, every test set once, and the unlabelled public set that the server may hold.

    Args:
        clients, tests: by name, in the order of the configuration; validation sets after the others.
        public: images without labels, or `None`.
        unvalidated: who has no validation set although `data.val_ids` asks for one.
        digests: of every dataset, as `data.digest` makes them.
        datasets: the tables that all the others are parts of.
        remarks: what a user should know of the files, one line each.
        left_out: by dataset the images that cannot be read, where these are skipped.
        synthetic: whether this program drew all pictures, which their files and the drawing code's manifest tell.
        overlaps: pictures and persons that are in two places.
        unread_folders: one line for every folder of `data.root` that is no dataset.
        unseen: test sets of the datasets in `data.leave_out`, which no client has.
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
        """The test sets of one client, by name."""
        return {name: self.tests[name] for name in self.clients[client].tests}

    def tables(self) -> Iterable[SampleTable]:
        """Every table that a run reads."""
        for client in self.clients.values():
            yield client.train
        for test in (*self.tests.values(), *self.unseen.values()):
            yield test.query
            yield test.gallery
