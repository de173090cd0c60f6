"""From the `data` section of a configuration to clients and test sets."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fedreid_pl.config import DataConfig
from fedreid_pl.data.federated import ClientData, FederatedData, TestSet
from fedreid_pl.data.minireid import ensure_minireid
from fedreid_pl.data.readers.market1501 import is_market1501, read_market1501
from fedreid_pl.data.samples import SampleTable, concatenate
from fedreid_pl.errors import FedReIDError

LAYOUTS: dict[str, tuple[Callable[..., SampleTable], Callable[[Path], bool]]] = {
    "market1501": (read_market1501, is_market1501),
}
"""Reader and recogniser of each layout; a new layout is one entry and one file under `readers`."""


def load_federated_data(config: DataConfig, progress: Callable[[str], None] | None = None) -> FederatedData:
    """Reads every dataset of the configuration and deals the training images out to clients.

    `by_dataset`: one client per dataset, evaluated on the dataset's own test set. `merged`: one client with the
    union of all training sets (persons of different sets kept apart), evaluated on every test set; this is
    centralized training.

    Raises:
        FedReIDError: if a folder is missing, empty or unreadable, or a set cannot be trained or evaluated on.
    """
    root = locate_root(config, progress)
    read, _ = LAYOUTS[config.layout]
    tables = [read(folder, name) for name, folder in dataset_folders(config, root).items()]
    tests = {table.name: TestSet(table.name, table.split("query"), table.split("gallery")) for table in tables}
    trains = [_labelled(table.split("train")) for table in tables]
    if config.scenario == "merged":
        clients = [ClientData("merged", concatenate(trains, "merged"), tuple(tests))]
    else:
        clients = [ClientData(train.name, train, (train.name,)) for train in trains]
    public = None
    if config.public:
        public = read(_existing(root / config.public, "data.public"), config.public, train_only=True)
    return FederatedData({client.name: client for client in clients}, tests, public)


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
    _, recognise = LAYOUTS[config.layout]
    found = {item.name: item for item in sorted(root.iterdir()) if item.name != config.public and recognise(item)}
    if not found:
        raise FedReIDError(
            f"data.root={root}: holds no dataset in the layout {config.layout} (a folder with bounding_box_train)"
        )
    return found


def _labelled(train: SampleTable) -> SampleTable:
    return train.take(np.flatnonzero(train.identities >= 0))


def _existing(folder: Path, name: str) -> Path:
    if not folder.is_dir():
        raise FedReIDError(f"{name}: no folder {folder}; check the path")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise FedReIDError(f"{name}: folder {folder} cannot be read; check its permissions")
    return folder
