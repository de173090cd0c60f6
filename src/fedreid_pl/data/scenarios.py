"""From the `data` section of a configuration to clients and test sets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

from fedreid_pl.config import DataConfig
from fedreid_pl.data.cache_folder import chosen_folder
from fedreid_pl.data.digest import digest
from fedreid_pl.data.federated import ClientData, FederatedData, TestSet
from fedreid_pl.data.guards import check_no_shared_images, guarded_public
from fedreid_pl.data.leaving_out import check_left_out, unseen_names, without_training
from fedreid_pl.data.locating import (
    dataset_folders,
    locate_dataset,
    locate_root,
    named_layout,
    read_dataset,
    unread_folders,
)
from fedreid_pl.data.naming import public_name
from fedreid_pl.data.overlap import byte_keys, check_overlaps, find_overlaps
from fedreid_pl.data.partition import by_camera, by_identity, without_first_images
from fedreid_pl.data.readable import BadImage, without_unreadable
from fedreid_pl.data.samples import SampleTable, concatenate
from fedreid_pl.data.synthetic import are_synthetic
from fedreid_pl.data.validation import Part, hold_out_validation
from fedreid_pl.errors import FedReIDError

NO_CAMERAS = "-no-cameras"
"""What the name of a dataset without cameras ends with."""

NOT_DRAWN = (
    "data.synthetic=true is not taken from the configuration: these pictures are not the ones that this program drew, "
    "so they are treated as photographs"
)


def load_federated_data(
    config: DataConfig, progress: Callable[[str], None] | None = None, complete: bool = True
) -> FederatedData:
    """Reads every dataset of the configuration and deals the training images out to clients.

    `by_dataset`: one client per dataset, evaluated on the dataset's own test set. `by_camera`, `by_identity`: each
    dataset becomes several clients (see `data.partition`) that share its test set. `merged`: one client with the
    union of all training sets (persons of different sets kept apart), evaluated on every test set; this is
    centralized training. With `hold_out=first` the first image of every identity is left out beforehand, and with
    `val_ids` persons are held out of what each client (of `merged`: each dataset) has then: see `data.validation`.
    `clients` leaves out the small or the large clients, and the test sets that only they have.

    The datasets of `leave_out` become no client: their training images are dropped before anything is computed from
    them, and query and gallery stand in `unseen`.

    `complete=False` says that the run has clients elsewhere: nobody here needs to have persons to hold out.

    Raises:
        FedReIDError: if the layout is unknown, a folder is missing, empty or unreadable, or a set cannot be trained or
            evaluated on.
    """
    named_layout(config)  # before anything is drawn
    root = locate_root(config, progress)
    left_out: dict[str, list[BadImage]] = {}

    def read(folder: Path, name: str, train_only: bool = False) -> SampleTable:
        table = read_dataset(config, folder, name, train_only=train_only)
        if name in outside and not train_only:
            table = without_training(table)
        if not train_only:
            name = marked_name(table)
            table = replace(table, name=name)
        if config.on_bad_image == "skip":
            table, bad = without_unreadable(table, chosen_folder(config.cache_dir), progress)
            if bad:
                left_out[name] = bad
        return table

    folders = dataset_folders(config, root)
    check_left_out(config, folders)
    outside = unseen_names(config)
    found = {name: read(folder, name) for name, folder in folders.items()}
    tables = [table for name, table in found.items() if name not in outside]
    unseen = [found[name] for name in outside]
    public = None
    if config.public:
        folder = locate_dataset(config, root, config.public, "data.public")
        public = read(folder, public_name(config.public), train_only=True)
    data = federate(config, tables, public, unseen, complete)
    for name, bad in left_out.items():
        data.digests[name]["left_out"] = [item._asdict() for item in bad]
    overlaps = find_overlaps(data, byte_keys(config, data.datasets, progress))
    passed_over = unread_folders(config, root)
    synthetic = are_synthetic(data.datasets)
    believed = [NOT_DRAWN] if config.synthetic and not synthetic else []
    return replace(
        data,
        left_out=left_out,
        overlaps=tuple(overlaps),
        unread_folders=tuple(passed_over),
        remarks=(*passed_over, *check_overlaps(config, overlaps), *data.remarks, *believed),
        synthetic=synthetic,
    )


def load_public(config: DataConfig, progress: Callable[[str], None] | None = None) -> FederatedData:
    """Reads `data.public` alone, for a server whose clients are elsewhere; the result has no client.

    A server without a folder of datasets has no public set either.

    Raises:
        FedReIDError: if the public set is not in the folder, or cannot be read.
    """
    if not config.public or not (config.root or config.source == "minireid"):
        return FederatedData({}, {}, None)
    named_layout(config)
    root = locate_root(config, progress)
    folder = locate_dataset(config, root, config.public, "data.public")
    table = read_dataset(config, folder, public_name(config.public), train_only=True)
    if config.on_bad_image == "skip":
        table, _ = without_unreadable(table, chosen_folder(config.cache_dir), progress)
    digests = {table.name: digest(table)}
    return FederatedData({}, {}, table, digests=digests, datasets=(table,), synthetic=are_synthetic([table]))


def federate(
    config: DataConfig,
    tables: Sequence[SampleTable],
    public: SampleTable | None = None,
    unseen: Sequence[SampleTable] = (),
    complete: bool = True,
) -> FederatedData:
    """What `load_federated_data` makes of the datasets once they are read.

    Args:
        config: of the data.
        tables: datasets whose training images the clients have.
        public: images without labels.
        unseen: query and gallery of datasets that are left out.
        complete: the run has no clients beside these.

    Raises:
        FedReIDError: if a set cannot be trained or evaluated on, two share an image, the public set shows persons
            whom a client is tested on, or nobody of a complete run has persons to hold out for `data.val_ids`.
    """
    read = [*tables, *unseen, *([public] if public is not None else [])]
    check_no_shared_images(read)
    if public is not None:
        public = guarded_public(config, public, [*tables, *unseen])
    targets = {table.name: TestSet(table.name, table.split("query"), table.split("gallery")) for table in unseen}
    tests = {table.name: TestSet(table.name, table.split("query"), table.split("gallery")) for table in tables}
    trains = [_labelled(table.split("train")) for table in tables]
    if config.hold_out == "first":
        trains = [without_first_images(train) for train in trains]
    dealt, single = _with_two_persons(config, _deal_out(config, trains))
    parts = _taking_part(config, dealt)
    tests = {name: test for name, test in tests.items() if name in {own for _, own, _ in parts}}
    validation: dict[str, TestSet] = {}
    if config.val_ids:
        parts, validation = hold_out_validation(config, parts, complete)
    if config.scenario == "merged":
        union = concatenate([train for _, _, train in parts], "merged")
        clients = [ClientData("merged", union, (*tests, *(test.name for test in validation.values())))]
    else:
        own = {name: (test, *([validation[name].name] if name in validation else [])) for name, test, _ in parts}
        clients = [ClientData(name, train, own[name]) for name, _, train in parts]
    return FederatedData(
        {client.name: client for client in clients},
        tests | {test.name: test for test in validation.values()},
        public,
        tuple(name for name, _, _ in parts if config.val_ids and name not in validation),
        {table.name: digest(table) for table in read},
        (*tables, *unseen, *([public] if public is not None else [])),
        (
            *(line for table in read for line in _remarks(table)),
            *(camera_remark(table) for table in (*tables, *unseen) if not table.has_cameras),
            *single,
            *unmatched_remarks(config, (*tests.values(), *targets.values())),
        ),
        unseen=targets,
    )


def marked_name(table: SampleTable) -> str:
    """The name of a dataset, which stands beside every number made from it: it says if the dataset has no cameras."""
    if table.has_cameras or table.name.endswith(NO_CAMERAS):
        return table.name
    return table.name + NO_CAMERAS


def camera_remark(table: SampleTable) -> str:
    """One line on a dataset without cameras."""
    name = table.name.removesuffix(NO_CAMERAS)
    return (
        f"{name}: names say no camera, so every gallery image of a person counts as a match, also one from the "
        f"query's own camera: scores are higher than with cameras, and the dataset is called {marked_name(table)}"
    )


def _remarks(table: SampleTable) -> tuple[str, ...]:
    """What a user should know of one dataset's files: what its reader remarks, and what is not read."""
    unread = table.inventory.named() if table.inventory is not None else ""
    remarks = (line if table.name in line else f"{table.name}: {line}" for line in table.remarks)
    return (*remarks, *([f"{table.name}: {unread}"] if unread else []))


def unmatched_remarks(config: DataConfig, tests: Iterable[TestSet]) -> list[str]:
    """One line for every test set with queries that nobody could answer."""
    what = "they count as failures" if config.keep_unmatched else "they are left out"
    return [
        f"{test.name}: {len(test.unmatched):,} of {len(test.query):,} queries have no gallery image of their person in "
        f"another camera, such as {test.query.files()[test.unmatched[0]]}; {what}"
        for test in tests
        if len(test.unmatched)
    ]


def _deal_out(config: DataConfig, trains: Sequence[SampleTable]) -> list[Part]:
    dealt: list[Part] = []
    for train in trains:
        parts: Iterable[tuple[str, SampleTable]] = [(train.name, train)]
        if config.scenario == "by_camera":
            parts = by_camera(train)
        elif config.scenario == "by_identity":
            parts = by_identity(train, config.parts, config.split_seed)
        try:
            dealt += [(name, train.name, part) for name, part in parts]
        except ValueError as error:
            raise FedReIDError(f"data.scenario={config.scenario}: {train.name}: {error}") from error
    return dealt


def _with_two_persons(config: DataConfig, parts: list[Part]) -> tuple[list[Part], list[str]]:
    """The parts of datasets that show two persons at least, and one line for every other part."""
    if config.scenario not in ("by_camera", "by_identity"):
        return parts, []
    kept = [part for part in parts if part[2].num_identities() > 1]
    if parts and not kept:
        raise FedReIDError(
            f"data.scenario={config.scenario}: each of the {len(parts)} clients would have a single training person, "
            "and a classifier needs two; set data.scenario=by_dataset"
        )
    names = [name for name, _, train in parts if train.num_identities() < 2]
    return kept, [
        f"client {name} is left out: its training images show a single person, and a classifier needs two"
        for name in names
    ]


def _taking_part(config: DataConfig, parts: list[Part]) -> list[Part]:
    """The clients that `data.clients` names, by their numbers of training images."""
    if config.clients == "all":
        return parts
    middle = median(len(train) for _, _, train in parts)
    kept = [part for part in parts if (len(part[2]) >= middle) == (config.clients == "large")]
    if not kept:
        raise FedReIDError(
            f"data.clients={config.clients}: none of the {len(parts)} clients has fewer training images than the "
            f"median, {middle:g}; set data.clients=all"
        )
    return kept


def _labelled(train: SampleTable) -> SampleTable:
    return train.take(np.flatnonzero(train.identities >= 0))
