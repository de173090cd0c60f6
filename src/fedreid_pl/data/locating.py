"""Where the datasets of a configuration lie, and how each is read."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from fedreid_pl.config import DataConfig
from fedreid_pl.data.cache_folder import chosen_folder
from fedreid_pl.data.catalogue import CATALOGUE, find_folders
from fedreid_pl.data.index import read_indexed
from fedreid_pl.data.layouts import Layout, ReadOptions, find_layouts, recognise_layout
from fedreid_pl.data.minireid import check_complete, ensure_minireid
from fedreid_pl.data.minireid.writer import MANIFEST
from fedreid_pl.data.naming import dataset_names, folder_names, split_entry
from fedreid_pl.data.near_misses import missing_dataset
from fedreid_pl.data.readers.crops import describe_folder, find_crops
from fedreid_pl.data.samples import SampleTable
from fedreid_pl.data.unrecognised import unrecognised, why_not
from fedreid_pl.errors import FedReIDError, nearest


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
