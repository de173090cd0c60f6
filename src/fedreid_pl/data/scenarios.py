"""From the `data` section of a configuration to clients and test sets."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fedreid_pl.config import DataConfig
from fedreid_pl.data.federated import ClientData, FederatedData, TestSet
from fedreid_pl.data.layouts import Layout, ReadOptions, find_layouts, recognise_layout
from fedreid_pl.data.minireid import ensure_minireid
from fedreid_pl.data.partition import by_camera, by_identity, without_first_images
from fedreid_pl.data.samples import SampleTable, concatenate
from fedreid_pl.errors import FedReIDError, nearest


def load_federated_data(config: DataConfig, progress: Callable[[str], None] | None = None) -> FederatedData:
    """Reads every dataset of the configuration and deals the training images out to clients.

    `by_dataset`: one client per dataset, evaluated on the dataset's own test set. `by_camera`, `by_identity`: each
    dataset becomes several clients (see `data.partition`) that share its test set. `merged`: one client with the
    union of all training sets (persons of different sets kept apart), evaluated on every test set; this is
    centralized training. With `hold_out=first` the first image of every identity is left out beforehand.

    Raises:
        FedReIDError: if the layout is unknown, a folder is missing, empty or unreadable, or a set cannot be trained or
            evaluated on.
    """
    named = named_layout(config)
    root = locate_root(config, progress)
    folders = dataset_folders(config, root)
    options = ReadOptions(split=config.split, seed=config.split_seed)
    tables = [(named or _recognised(folder)).read(folder, name, options) for name, folder in folders.items()]
    tests = {table.name: TestSet(table.name, table.split("query"), table.split("gallery")) for table in tables}
    trains = [_labelled(table.split("train")) for table in tables]
    if config.hold_out == "first":
        trains = [without_first_images(train) for train in trains]
    clients = _deal_out(config, trains, tuple(tests))
    public = None
    if config.public:
        folder = _existing(root / config.public, "data.public")
        public = (named or _recognised(folder)).read(folder, config.public, replace(options, train_only=True))
    return FederatedData({client.name: client for client in clients}, tests, public)


def _deal_out(config: DataConfig, trains: Sequence[SampleTable], tests: tuple[str, ...]) -> list[ClientData]:
    if config.scenario == "merged":
        return [ClientData("merged", concatenate(trains, "merged"), tests)]
    clients = []
    for train in trains:
        parts: Iterable[tuple[str, SampleTable]] = [(train.name, train)]
        if config.scenario == "by_camera":
            parts = by_camera(train)
        elif config.scenario == "by_identity":
            parts = by_identity(train, config.parts, config.split_seed)
        try:
            clients += [ClientData(name, part, (train.name,)) for name, part in parts]
        except ValueError as error:
            raise FedReIDError(f"data.scenario={config.scenario}: {train.name}: {error}") from error
    return clients


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
    """The folder of the datasets; draws MiniReID first if that is the source and it is not there yet.

    Raises:
        FedReIDError: if `data.root` is needed and missing.
    """
    if config.source == "minireid":
        return ensure_minireid(Path(config.root).expanduser() if config.root else None, progress=progress)
    if not config.root:
        raise FedReIDError(f"data={config.name}: give the folder of the datasets, data.root=/path/to/datasets")
    return _existing(Path(config.root).expanduser(), "data.root")


def dataset_folders(config: DataConfig, root: Path) -> dict[str, Path]:
    """Name and folder of every dataset that becomes a client or a part of one.

    Raises:
        FedReIDError: if a named folder is missing, a name stands twice, or no folder has the layout.
    """
    if config.datasets:
        public = (root / config.public).resolve() if config.public else None
        named: dict[str, Path] = {}
        for text in config.datasets:
            name, folder = text.strip("/").replace("/", "-"), _existing(root / text, "data.datasets")
            if name in named or folder.resolve() in {other.resolve() for other in named.values()}:
                raise FedReIDError(f"data.datasets: {text} is named twice; two clients may not share images")
            if folder.resolve() == public:
                raise FedReIDError(f"data.public={config.public}: is a client too; the public set must be another one")
            named[name] = folder
        return named
    layout = named_layout(config)
    recognise = layout.recognise if layout else recognise_layout
    found = {item.name: item for item in sorted(root.iterdir()) if item.name != config.public and recognise(item)}
    if not found:
        wanted = f"in the layout {layout.key} (folders that hold {layout.expects})" if layout else "in a known layout"
        raise FedReIDError(f"data.root={root}: holds no dataset {wanted}; name folders below it with data.datasets")
    return found


def _labelled(train: SampleTable) -> SampleTable:
    return train.take(np.flatnonzero(train.identities >= 0))


def _recognised(folder: Path) -> Layout:
    layout = recognise_layout(folder)
    if layout is None:
        raise FedReIDError(
            f"{folder}: is in no layout that data.layout=auto recognises; "
            f"name one with data.layout, of {', '.join(find_layouts())}"
        )
    return layout


def _existing(folder: Path, name: str) -> Path:
    if not folder.is_dir():
        raise FedReIDError(f"{name}: no folder {folder}; check the path")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise FedReIDError(f"{name}: folder {folder} cannot be read; check its permissions")
    return folder
