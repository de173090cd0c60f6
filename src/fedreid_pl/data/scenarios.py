"""From the `data` section of a configuration to clients and test sets."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

from fedreid_pl.config import DataConfig
from fedreid_pl.data.cache_folder import chosen_folder
from fedreid_pl.data.catalogue import CATALOGUE, find_folders
from fedreid_pl.data.digest import digest
from fedreid_pl.data.federated import ClientData, FederatedData, TestSet
from fedreid_pl.data.guards import check_no_shared_images, guarded_public
from fedreid_pl.data.index import read_indexed
from fedreid_pl.data.layouts import Layout, ReadOptions, find_layouts, recognise_layout
from fedreid_pl.data.minireid import check_complete, ensure_minireid
from fedreid_pl.data.minireid.writer import MANIFEST
from fedreid_pl.data.naming import dataset_names, folder_names, public_name, split_entry
from fedreid_pl.data.near_misses import missing_dataset
from fedreid_pl.data.overlap import byte_keys, check_overlaps, find_overlaps
from fedreid_pl.data.partition import by_camera, by_identity, without_first_images
from fedreid_pl.data.readable import BadImage, without_unreadable
from fedreid_pl.data.readers.crops import describe_folder, find_crops
from fedreid_pl.data.samples import SampleTable, concatenate
from fedreid_pl.data.synthetic import are_synthetic
from fedreid_pl.data.unrecognised import unrecognised, why_not
from fedreid_pl.data.validation import Part, hold_out_validation
from fedreid_pl.errors import FedReIDError, nearest

NO_CAMERAS = "-no-cameras"
"""What the name of a dataset without cameras ends with."""

NOT_DRAWN = (
    "data.synthetic=true is not taken from the configuration: these pictures are not the ones that this program drew, "
    "so they are treated as photographs"
)


def load_federated_data(config: DataConfig, progress: Callable[[str], None] | None = None) -> FederatedData:
    """Reads every dataset of the configuration and deals the training images out to clients.

    `by_dataset`: one client per dataset, evaluated on the dataset's own test set. `by_camera`, `by_identity`: each
    dataset becomes several clients (see `data.partition`) that share its test set. `merged`: one client with the
    union of all training sets (persons of different sets kept apart), evaluated on every test set; this is
    centralized training. With `hold_out=first` the first image of every identity is left out beforehand, and with
    `val_ids` persons are held out of what each client (of `merged`: each dataset) has then: see `data.validation`.
    `clients` leaves out the small or the large clients, and the test sets that only they have.

    Raises:
        FedReIDError: if the layout is unknown, a folder is missing, empty or unreadable, or a set cannot be trained or
            evaluated on.
    """
    named_layout(config)  # before anything is drawn
    root = locate_root(config, progress)
    left_out: dict[str, list[BadImage]] = {}

    def read(folder: Path, name: str, train_only: bool = False) -> SampleTable:
        table = read_dataset(config, folder, name, train_only=train_only)
        if not train_only:
            name = marked_name(table)
            table = replace(table, name=name)
        if config.on_bad_image == "skip":
            table, bad = without_unreadable(table, chosen_folder(config.cache_dir), progress)
            if bad:
                left_out[name] = bad
        return table

    tables = [read(folder, name) for name, folder in dataset_folders(config, root).items()]
    public = None
    if config.public:
        folder = locate_dataset(config, root, config.public, "data.public")
        public = read(folder, public_name(config.public), train_only=True)
    data = federate(config, tables, public)
    for name, bad in left_out.items():
        data.digests[name]["left_out"] = [item._asdict() for item in bad]
    overlaps = find_overlaps(data, byte_keys(config, data.datasets, progress))
    folders = unread_folders(config, root)
    synthetic = are_synthetic(data.datasets)
    believed = [NOT_DRAWN] if config.synthetic and not synthetic else []
    return replace(
        data,
        left_out=left_out,
        overlaps=tuple(overlaps),
        unread_folders=tuple(folders),
        remarks=(*folders, *check_overlaps(config, overlaps), *data.remarks, *believed),
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


def federate(config: DataConfig, tables: Sequence[SampleTable], public: SampleTable | None = None) -> FederatedData:
    """What `load_federated_data` makes of the datasets once they are read.

    Raises:
        FedReIDError: if a set cannot be trained or evaluated on, two share an image, the public set shows persons
            whom a client is tested on, or nobody has persons to hold out for `data.val_ids`.
    """
    read = [*tables, *([public] if public is not None else [])]
    check_no_shared_images(read)
    if public is not None:
        public = guarded_public(config, public, tables)
    tests = {table.name: TestSet(table.name, table.split("query"), table.split("gallery")) for table in tables}
    trains = [_labelled(table.split("train")) for table in tables]
    if config.hold_out == "first":
        trains = [without_first_images(train) for train in trains]
    dealt, single = _with_two_persons(config, _deal_out(config, trains))
    parts = _taking_part(config, dealt)
    tests = {name: test for name, test in tests.items() if name in {own for _, own, _ in parts}}
    validation: dict[str, TestSet] = {}
    if config.val_ids:
        parts, validation = hold_out_validation(config, parts)
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
        (*tables, *([public] if public is not None else [])),
        (
            *(line for table in read for line in _remarks(table)),
            *(camera_remark(table) for table in tables if not table.has_cameras),
            *single,
            *unmatched_remarks(config, tests.values()),
        ),
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


def named_layout(config: DataConfig) -> Layout | None:
    """The layout that `data.layout` names, `None` for `auto`.

    Raises:
        FedReIDError: if there is no such layout.
    """
    layouts = find_layouts()
    if config.layout == "auto":
        return None
    if config.layout not in layouts:
        raise FedReIDError(f"data.layout={config.layout}: no such layout{nearest(config.layout, ['auto', *layouts])}")
    return layouts[config.layout]


def locate_root(config: DataConfig, progress: Callable[[str], None] | None = None) -> Path:
    """The folder of the datasets; MiniReID is drawn into its own place, never into `data.root`.

    Raises:
        FedReIDError: if `data.root` is needed and missing, or `data=minireid` is given a root without MiniReID.
    """
    if config.source == "minireid" and not config.root:
        return ensure_minireid(config.minireid_dir, progress=progress, version=config.version)
    if not config.root:
        raise FedReIDError(f"data={config.name}: give the folder of the datasets, data.root=/path/to/datasets")
    root = _existing(Path(os.path.expanduser(config.root)), "data.root")
    if config.source == "minireid":
        if not (root / MANIFEST).is_file():
            raise FedReIDError(
                f"data.root={root}: {describe_folder(root)}, and no MiniReID; data=minireid draws its pictures into a "
                "place of its own (data.minireid_dir): leave data.root out, or leave data=minireid out to read "
                "the folder"
            )
        check_complete(root, version=config.version)
    return root


def read_dataset(config: DataConfig, folder: Path, name: str, *, train_only: bool = False) -> SampleTable:
    """The table of one dataset, in the layout that the configuration names or else in its own.

    Raises:
        FedReIDError: if the layout is not recognised or the folder is not what the layout demands.
    """
    layout = named_layout(config) or _recognised(folder)
    options = ReadOptions(train_only, config.split, config.split_seed, config.name_pattern, config.test_ids)
    if config.name_pattern is not None and not layout.named:
        named = ", ".join(key for key, known in find_layouts().items() if known.named)
        raise FedReIDError(
            f"data.name_pattern={config.name_pattern}: {folder} has the layout {layout.key}, which finds "
            f"person and camera by rules of its own; leave the key out, or use one of the layouts {named}"
        )
    table = read_indexed(layout, folder, name, options, chosen_folder(config.cache_dir))
    return replace(table, layout=layout.key)


def locate_dataset(config: DataConfig, root: Path, text: str, key: str) -> Path:
    """The folder of a dataset: one of this name, or where the catalogue finds the dataset of this name.

    Args:
        config: says which layouts count.
        root: the folder of the datasets.
        text: an entry of `data.datasets`, or `data.public`.
        key: which of the two, for messages.

    Raises:
        FedReIDError: if it is missing, cannot be read, or two folders fit.
    """
    if text not in CATALOGUE:
        return _existing(root / text, key)
    layout = named_layout(config)
    found = find_folders(CATALOGUE[text], root, layout)
    if len(found) > 1:
        names = [str(folder.relative_to(root)) for folder in found]
        raise FedReIDError(
            f"{key}: {text} may be {' or '.join(names)} in {root}; "
            f"name one of them instead of {text}, or move the others elsewhere"
        )
    if not found and layout is not None and (root / text).is_dir():
        found = [root / text]  # in a layout that was asked for: its reader says what is missing
    if not found:
        without = "; data.public=null does without a public set" if key == "data.public" else ""
        raise FedReIDError(f"{key}: {missing_dataset(CATALOGUE[text], root, layout)}{without}")
    return _existing(found[0], key)


def dataset_folders(config: DataConfig, root: Path) -> dict[str, Path]:
    """Name and folder of every dataset that becomes a client or a part of one.

    Raises:
        FedReIDError: if a named folder is missing, a name stands twice, or no folder has the layout.
    """
    public = _public_folder(config, root)
    if config.datasets:
        named: dict[str, Path] = {}
        names = dataset_names(config.datasets)
        for name, text in zip(names, config.datasets, strict=True):
            folder = locate_dataset(config, root, split_entry(text)[1], "data.datasets")
            if folder.resolve() in {other.resolve() for other in named.values()}:
                raise FedReIDError(f"data.datasets: {text} is named twice; two clients may not share images")
            if folder.resolve() == public:
                raise FedReIDError(f"data.public={config.public}: is a client too; the public set must be another one")
            named[name] = folder
        return named
    layout = named_layout(config)
    if layout is not None and layout.key == "crops":
        crops = [folder for folder in find_crops(root) if folder.resolve() != public]
        return dict(zip(folder_names([folder.name for folder in crops]), crops, strict=True))
    recognise = layout.recognise if layout else recognise_layout
    found = [item for item in sorted(root.iterdir()) if item.resolve() != public and recognise(item)]
    if not found and recognise(root):
        found = [root]
    if not found:
        wanted = f"in the layout {layout.key} (folders that hold {layout.expects})" if layout else "in a known layout"
        near = "; ".join(unrecognised(root, layout, set()))
        raise FedReIDError(
            f"data.root={root}: holds no dataset {wanted}; {describe_folder(root)}; name folders below it with "
            "data.datasets" + (f"; {near}" if near else "")
        )
    return dict(zip(folder_names([item.name for item in found]), found, strict=True))


def unread_folders(config: DataConfig, root: Path) -> list[str]:
    """Returns one line for every folder in `data.root` that is passed over although no dataset is named."""
    if config.datasets or config.source == "minireid":
        return []
    used = {folder.resolve() for folder in dataset_folders(config, root).values()}
    if root.resolve() in used or config.layout == "crops":
        return []
    public = _public_folder(config, root)
    return unrecognised(root, named_layout(config), used | ({public} if public else set()))


def _public_folder(config: DataConfig, root: Path) -> Path | None:
    """The public set's folder, links resolved; `None` if there is none, or none to be found."""
    if not config.public:
        return None
    with suppress(FedReIDError):  # whoever reads it is told
        return locate_dataset(config, root, config.public, "data.public").resolve()
    return None


def _labelled(train: SampleTable) -> SampleTable:
    return train.take(np.flatnonzero(train.identities >= 0))


def _recognised(folder: Path) -> Layout:
    layout = recognise_layout(folder)
    if layout is None:
        raise FedReIDError(f"{folder}: {why_not(folder)}; name one with data.layout, of {', '.join(find_layouts())}")
    return layout


def _existing(folder: Path, name: str) -> Path:
    if not folder.is_dir():
        raise FedReIDError(f"{name}: no folder {folder}; check the path")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise FedReIDError(f"{name}: folder {folder} cannot be read; check its permissions")
    return folder
