"""The check of the datasets of a configuration: they must be present, complete and readable."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fedreid_pl.config import DataConfig
from fedreid_pl.data.catalogue import CATALOGUE, Counts, KnownDataset, find_folders, identify
from fedreid_pl.data.check_result import DataCheck, DatasetCheck, SplitCounts, Use
from fedreid_pl.data.decoding import decode_all
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.data.layouts import find_layouts, recognise_layout
from fedreid_pl.data.leaving_out import check_left_out, unseen_names, without_training
from fedreid_pl.data.locating import (
    dataset_folders,
    locate_dataset,
    locate_root,
    named_layout,
    read_dataset,
    unread_folders,
)
from fedreid_pl.data.naming import dataset_names, public_name, split_entry
from fedreid_pl.data.overlap import byte_keys, check_overlaps, find_overlaps
from fedreid_pl.data.overlap_found import Overlap
from fedreid_pl.data.readable import without_files
from fedreid_pl.data.samples import DISTRACTOR, SPLITS, SampleTable
from fedreid_pl.data.scenarios import NO_CAMERAS, camera_remark, federate, unmatched_remarks
from fedreid_pl.data.synthetic import are_synthetic
from fedreid_pl.errors import FedReIDError

Progress = Callable[[str], None]


def check_data(config: DataConfig, progress: Progress | None = None) -> DataCheck:
    """Finds, reads and decodes the datasets of a configuration and other datasets of the catalogue in the same folder.

    Args:
        config: the `data` section.
        progress: called with a short text from time to time.

    Raises:
        FedReIDError: if `data.root` is missing, `data.layout` is unknown, or no folder has the layout.
    """
    started = time.perf_counter()
    say = progress or (lambda text: None)
    named_layout(config)
    root = locate_root(config, say)
    if config.datasets:
        named = zip(dataset_names(config.datasets), config.datasets, strict=True)
        wanted: list[tuple[str, str, Use, Path | None]] = [
            (name, split_entry(text)[1], "client", None) for name, text in named
        ]
    else:
        found = dataset_folders(config, root)
        wanted = [(name, folder.name, "client", folder) for name, folder in found.items()]
    if config.public:
        wanted.append((public_name(config.public), config.public, "public", None))
    checks, tables = [], []
    for name, text, use, folder in wanted:
        use = "unseen" if use == "client" and name in unseen_names(config) else use
        check, table = _check(config, root, name, text, use, folder, say)
        checks.append(check)
        tables.append(table)
    read = [table for table in tables if table is not None]
    result = DataCheck(config.name, root, len(read) == len(tables) and are_synthetic(read), checks)
    if len(read) == len(tables):
        public = read.pop() if config.public else None
        try:
            check_left_out(config, dataset_folders(config, root))  # dataset_folders rejects two names of one folder
            outside = unseen_names(config)
            unseen = [without_training(table) for table in read if table.name.removesuffix(NO_CAMERAS) in outside]
            data = federate(config, [t for t in read if t.name.removesuffix(NO_CAMERAS) not in outside], public, unseen)
            result.remarks = unmatched_remarks(config, (*data.tests.values(), *data.unseen.values()))
            result.overlaps = _overlaps(config, data, checks, say)
            result.remarks = [*map(str, result.overlaps), *result.remarks]
            check_overlaps(config, result.overlaps)
        except FedReIDError as error:
            result.problem = str(error)
    result.remarks = [*unread_folders(config, root), *result.remarks]
    if not result.synthetic:
        checks += _others(config, root, checks, say)
    result.seconds = time.perf_counter() - started
    return result


def count_splits(table: SampleTable) -> dict[str, SplitCounts]:
    """Returns the counts of each split as in Table 1: all distractors are one identity, junk images are included."""
    counts = {}
    for name in SPLITS:
        part = table.split(name)
        identities = part.num_identities() + bool((part.identities == DISTRACTOR).any())
        counts[name] = SplitCounts(identities, len(part), len(np.unique(part.cameras)))
    return counts


def differences(dataset: KnownDataset, found: Counts, layout: str | None) -> list[str]:
    """Returns the differences between `found` and Table 1, one line each.

    Counts that depend on the unpublished draw of the authors are not compared.

    >>> viper = CATALOGUE["VIPeR"]
    >>> differences(viper, viper.table1._replace(query_images=315), "viper")
    ['query images 315, Table 1 has 316']
    """
    table1 = dataset.table1
    if table1 is None:
        return []
    drawn = layout == dataset.layout and abs(found.images - table1.images) <= dataset.slack
    lines = []
    for name, mine, theirs in zip(Counts._fields, found, table1, strict=True):
        if mine != theirs and not (drawn and name in dataset.drawn):
            reason = dataset.explained.get((name, mine))
            line = f"{name.replace('_', ' ')} {mine:,}, Table 1 has {theirs:,}"
            lines.append(f"{line} ({reason})" if reason else line)
    return lines


def _check(
    config: DataConfig, root: Path, name: str, text: str, use: Use, folder: Path | None, say: Progress
) -> tuple[DatasetCheck, SampleTable | None]:
    """Checks one dataset; `text` is its folder below `root`, and `folder` its path if it is already known."""
    started = time.perf_counter()
    check = DatasetCheck(name, use)
    table = None
    try:
        say(f"{check.name}: names")
        key = "data.public" if use == "public" else "data.datasets"
        check.folder = folder or locate_dataset(config, root, text, key)
        layout = named_layout(config) or recognise_layout(check.folder)
        check.layout = layout.key if layout else None
        table = read_dataset(config, check.folder, check.name, train_only=use == "public")
        _count(check, table, None if config.synthetic else identify(text))
        files = list(dict.fromkeys(table.files()))
        check.images = len(files)
        check.unreadable, pixels = decode_all(files, lambda done: say(f"{check.name}: {done}"))
        check.pixels |= pixels
        check.found = table.found or _taken_apart(table, find_layouts()[table.layout].found)
        check.notes += [line.removeprefix(f"{check.name}: ") for line in table.remarks]
        if not table.has_cameras and use in ("client", "unseen"):
            check.notes.append(camera_remark(table).removeprefix(f"{check.name}: "))
        if table.inventory is not None:
            check.files = table.inventory
            skipped = table.inventory.counted()
            check.notes += [table.inventory.named()] if table.inventory.unread else []
            check.notes += [f"skipped on purpose: {skipped}"] if skipped else []
        if config.on_bad_image == "skip":
            check.skipped = True
            table = without_files(table, [path for path, _ in check.unreadable])
    except FedReIDError as error:
        check.problem = str(error)
    check.seconds = time.perf_counter() - started
    return check, table


def _taken_apart(table: SampleTable, how: str) -> str:
    """Returns how a layout finds person and camera, with the first image as an example."""
    return f"{how}; {table.paths[0]}: person {table.identities[0]}, camera {table.cameras[0]}"


def _overlaps(config: DataConfig, data: FederatedData, checks: Sequence[DatasetCheck], say: Progress) -> list[Overlap]:
    """Returns overlaps by file bytes, and overlaps by pixels where these are more."""
    found = find_overlaps(data, byte_keys(config, data.datasets, say))
    known = {(item.where, item.count) for item in found}
    pixels = {path: key for check in checks for path, key in check.pixels.items()}
    return found + [item for item in find_overlaps(data, pixels, "pixels") if (item.where, item.count) not in known]


def _count(check: DatasetCheck, table: SampleTable, known: KnownDataset | None) -> None:
    check.splits = count_splits(table)
    check.cameras = len(np.unique(table.cameras))
    counts = check.counts()
    if known is not None and known.table1 is not None and counts is not None and check.use != "public":
        check.table1 = known.table1
        check.differences = differences(known, counts, check.layout)
        check.notes += [known.note] if known.note else []


def _others(config: DataConfig, root: Path, checks: Sequence[DatasetCheck], say: Progress) -> list[DatasetCheck]:
    """Checks the other datasets of the catalogue below `root`, each in its own layout."""
    known = {check.name for check in checks}
    places = {check.folder.resolve() for check in checks if check.folder is not None}
    found = []
    for name, dataset in CATALOGUE.items():
        folders = [folder for folder in find_folders(dataset, root) if folder.resolve() not in places]
        if name not in known:
            found += [
                _check(replace(config, layout="auto"), root, name, name, "none", folder, say)[0] for folder in folders
            ]
    return found
