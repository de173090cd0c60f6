"""Creates clients and test sets from the `data` section of a configuration."""

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
"""Suffix of the name of a dataset without cameras."""

NOT_DRAWN = (
    "data.synthetic=true is not taken from the configuration: these pictures are not the ones that this program drew, "
    "so they are treated as photographs"
)


def load_federated_data(
    config: DataConfig, progress: Callable[[str], None] | None = None, complete: bool = True
) -> FederatedData:
    """Reads every dataset of the configuration and splits the training images over the clients.

    Scenarios:

    - `by_dataset`: one client per dataset, evaluated on the test set of this dataset.
    - `by_camera`, `by_identity`: each dataset becomes several clients (see `data.partition`) that share its test set.
    - `merged`: one client with the union of all training sets, evaluated on every test set (centralized training).
      Persons of different datasets stay distinct.

    With `hold_out=first` the first image of every identity is left out. With `val_ids` each client (in `merged`: each
    dataset) then holds out persons for validation, see `data.validation`. `clients` leaves out the small or the large
    clients, and their test sets.

    The datasets of `leave_out` do not become clients. Their training images are dropped immediately, and their query
    and gallery are in `unseen`.

    `complete=False` means that the run has clients on other machines; no client here then needs a validation set.

    Raises:
        FedReIDError: if the layout is unknown, a folder is missing, empty or unreadable, or a dataset is unusable for
            training or evaluation.
    """
    named_layout(config)  # raises an error before MiniReID is drawn
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
    """Reads only `data.public`, for a server whose clients are on other machines; the result has no client.

    A server without a folder of datasets has no public set.

    Raises:
        FedReIDError: if the public set is missing or cannot be read.
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
    """Creates clients and test sets from tables, for `load_federated_data`.

    Args:
        config: the `data` section.
        tables: datasets whose training images belong to clients.
        public: images without labels.
        unseen: query and gallery of datasets that are left out.
        complete: whether these are all clients of the run.

    Raises:
        FedReIDError: if a dataset is unusable for training or evaluation, two datasets share an image, the public set
            shows test persons of a client, or no client of a complete run has enough persons for `data.val_ids`.
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
    """Returns the name of a dataset for all reports; it has the suffix `NO_CAMERAS` if the dataset has no cameras."""
    if table.has_cameras or table.name.endswith(NO_CAMERAS):
        return table.name
    return table.name + NO_CAMERAS


def camera_remark(table: SampleTable) -> str:
    """Returns one line about a dataset without cameras."""
    name = table.name.removesuffix(NO_CAMERAS)
    return (
        f"{name}: names say no camera, so every gallery image of a person counts as a match, also one from the "
        f"query's own camera: scores are higher than with cameras, and the dataset is called {marked_name(table)}"
    )


def _remarks(table: SampleTable) -> tuple[str, ...]:
    """Returns remarks on a dataset's files: those of its reader, and one about unread files."""
    unread = table.inventory.named() if table.inventory is not None else ""
    remarks = (line if table.name in line else f"{table.name}: {line}" for line in table.remarks)
    return (*remarks, *([f"{table.name}: {unread}"] if unread else []))


def unmatched_remarks(config: DataConfig, tests: Iterable[TestSet]) -> list[str]:
    """Returns one line for every test set with queries that have no match."""
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
    """Returns the parts of datasets with at least two persons, and one line for every other part."""
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
    """Returns the clients selected by `data.clients`, by their numbers of training images."""
    if config.clients == "all":
        return parts
    middle = median(len(train) for _, _, train in parts)
    kept = [part for part in parts if (len(part[2]) >= middle) == (config.clients == "large")]
    if not kept:
        raise FedReIDError(
            f"data.clients={config.clients}: no client has fewer training images than the "
            f"median, {middle:g}; set data.clients=all"
        )
    return kept


def _labelled(train: SampleTable) -> SampleTable:
    return train.take(np.flatnonzero(train.identities >= 0))
