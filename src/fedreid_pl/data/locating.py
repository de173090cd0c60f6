"""Locates the folders of the datasets of a configuration, and reads each dataset in its layout."""

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
    """Returns the layout with the key `data.layout`, or `None` for `auto`.

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
    """Returns the folder of the datasets. MiniReID is drawn into its own folder, never into `data.root`.

    Raises:
        FedReIDError: if `data.root` is needed but missing, or if `data=minireid` is combined with a `data.root` that
            does not contain MiniReID.
    """
    if config.source == "minireid" and not config.root:
        return ensure_minireid(config.minireid_dir, progress=progress, version=config.version)
    if not config.root:
        raise FedReIDError(f"data={config.name}: give the folder of the datasets, data.root=/path/to/datasets")
    root = _existing(Path(os.path.expanduser(config.root)), "data.root")
    if config.source == "minireid":
        if not (root / MANIFEST).is_file():
            raise FedReIDError(
                f"data.root={root}: {describe_folder(root)}, and no MiniReID; data=minireid draws its images into its "
                "own folder (data.minireid_dir): remove data.root from the command, or remove data=minireid to read "
                "the folder"
            )
        check_complete(root, version=config.version)
    return root


def read_dataset(config: DataConfig, folder: Path, name: str, *, train_only: bool = False) -> SampleTable:
    """Returns the table of a dataset, read in the layout of the configuration or else in the recognised layout.

    Raises:
        FedReIDError: if the layout is not recognised, or if the folder does not have the given layout.
    """
    layout = named_layout(config) or _recognised(folder)
    options = ReadOptions(train_only, config.split, config.split_seed, config.name_pattern, config.test_ids)
    if config.name_pattern is not None and not layout.named:
        named = ", ".join(key for key, known in find_layouts().items() if known.named)
        raise FedReIDError(
            f"data.name_pattern={config.name_pattern}: {folder} has the layout {layout.key}, which has its own rules "
            f"for person and camera; leave the key out, or use one of the layouts {named}"
        )
    table = read_indexed(layout, folder, name, options, chosen_folder(config.cache_dir))
    return replace(table, layout=layout.key)


def locate_dataset(config: DataConfig, root: Path, text: str, key: str) -> Path:
    """Returns the folder of a dataset: the folder with this name, or the folder that the catalogue finds for the name.

    Args:
        config: the `data` section; its layout restricts the folders.
        root: the folder of the datasets.
        text: an entry of `data.datasets`, or `data.public`.
        key: key of the entry, for messages.

    Raises:
        FedReIDError: if the folder is missing or cannot be read, or if several folders fit.
    """
    if text not in CATALOGUE:
        return _existing(root / text, key)
    layout = named_layout(config)
    found = find_folders(CATALOGUE[text], root, layout)
    if len(found) > 1:
        names = [str(folder.relative_to(root)) for folder in found]
        raise FedReIDError(
            f"{key}: {text} may be {' or '.join(names)} in {root}; "
            f"give one of these folders instead of {text}, or move the others elsewhere"
        )
    if not found and layout is not None and (root / text).is_dir():
        found = [root / text]  # the user chose the layout, so its reader reports what is missing
    if not found:
        without = "; data.public=null disables the public set" if key == "data.public" else ""
        raise FedReIDError(f"{key}: {missing_dataset(CATALOGUE[text], root, layout)}{without}")
    return _existing(found[0], key)


def dataset_folders(config: DataConfig, root: Path) -> dict[str, Path]:
    """Returns name and folder of every dataset that becomes a client or a part of one.

    Raises:
        FedReIDError: if a folder is missing, a dataset is given twice, or no folder has the layout.
    """
    public = _public_folder(config, root)
    if config.datasets:
        named: dict[str, Path] = {}
        names = dataset_names(config.datasets)
        for name, text in zip(names, config.datasets, strict=True):
            folder = locate_dataset(config, root, split_entry(text)[1], "data.datasets")
            if folder.resolve() in {other.resolve() for other in named.values()}:
                raise FedReIDError(f"data.datasets: {text} is given twice; two clients may not share images")
            if folder.resolve() == public:
                raise FedReIDError(
                    f"data.public={config.public}: this dataset is a client too; choose another public set"
                )
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
        wanted = f"in the layout {layout.key} (folders with {layout.expects})" if layout else "in a known layout"
        near = "; ".join(unrecognised(root, layout, set()))
        raise FedReIDError(
            f"data.root={root}: contains no dataset {wanted}; {describe_folder(root)}; give folders below it with "
            "data.datasets" + (f"; {near}" if near else "")
        )
    return dict(zip(folder_names([item.name for item in found]), found, strict=True))


def unread_folders(config: DataConfig, root: Path) -> list[str]:
    """Returns one line for every folder in `data.root` that is ignored, if `data.datasets` is empty."""
    if config.datasets or config.source == "minireid":
        return []
    used = {folder.resolve() for folder in dataset_folders(config, root).values()}
    if root.resolve() in used or config.layout == "crops":
        return []
    public = _public_folder(config, root)
    return unrecognised(root, named_layout(config), used | ({public} if public else set()))


def _public_folder(config: DataConfig, root: Path) -> Path | None:
    """Returns the folder of the public set with links resolved, or `None` if there is none or it is not found."""
    if not config.public:
        return None
    with suppress(FedReIDError):  # reading the public set raises this error again
        return locate_dataset(config, root, config.public, "data.public").resolve()
    return None


def _recognised(folder: Path) -> Layout:
    layout = recognise_layout(folder)
    if layout is None:
        raise FedReIDError(f"{folder}: {why_not(folder)}; set data.layout to one of {', '.join(find_layouts())}")
    return layout


def _existing(folder: Path, name: str) -> Path:
    if not folder.is_dir():
        raise FedReIDError(f"{name}: no folder {folder}; check the path")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise FedReIDError(f"{name}: folder {folder} cannot be read; check its permissions")
    return folder
