"""Common functions of the readers of small datasets in the authors' original layout."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from fedreid_pl.data.readers.csv_table import is_csv_table
from fedreid_pl.data.readers.cuhk03_mat import is_cuhk03_mat
from fedreid_pl.data.readers.dgd import is_dgd
from fedreid_pl.data.readers.fedreid_processed import is_fedreid_processed
from fedreid_pl.data.readers.id_folders import is_id_folders
from fedreid_pl.data.readers.listing import Row, has_folders, image_names
from fedreid_pl.data.readers.market1501 import is_market1501
from fedreid_pl.data.readers.msmt17 import is_msmt17
from fedreid_pl.data.readers.picture_files import is_picture
from fedreid_pl.data.samples import GALLERY, QUERY, TRAIN
from fedreid_pl.errors import FedReIDError

FOLDERS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "3dpes": (("RGB",),),
    "caviar": (("CAVIARa",),),
    "cuhk01": (("campus",),),
    "cuhk02": (("P1/cam1", "P1/cam2"), ("Dataset/P1/cam1", "Dataset/P1/cam2")),
    "grid": (("probe", "gallery"),),
    "ilids": (("Persons",),),
    "prid2011": (("single_shot/cam_a", "single_shot/cam_b"),),
    "viper": (("cam_a", "cam_b"),),
}
"""Sets of folders that mark a dataset, by layout; one set is sufficient."""

FLAT: Mapping[str, str] = {"3dpes": "RGB", "caviar": "CAVIARa", "cuhk01": "campus", "ilids": "Persons"}
"""The only image folder of a dataset, by layout; the user may also give this folder as the dataset's folder."""

CONVERTED = (is_market1501, is_msmt17, is_fedreid_processed, is_dgd, is_cuhk03_mat, is_csv_table, is_id_folders)
"""Recognisers of converted datasets. They have priority, because converted files are often beside the originals."""

Image = tuple[str, int, int]
"""Path relative to the dataset's folder, person, camera."""


def is_original(root: Path, layout: str) -> bool:
    """Returns whether `root` has the folders of this layout only, and was not converted in place.

    A folder with the folders of several datasets is not a dataset: several archives were extracted into it.
    """
    marked = [
        key
        for key, alternatives in FOLDERS.items()
        if any(has_folders(root, *folders) for folders in alternatives) or FLAT.get(key) == root.name
    ]
    return marked == [layout] and not any(recognise(root) for recognise in CONVERTED)


def flat_folder(root: Path, layout: str) -> str:
    """Returns the image folder of a `FLAT` layout relative to `root`; empty if `root` is this folder."""
    folder = FLAT[layout]
    return "" if root.name == folder and not has_folders(root, folder) else folder


def holds(folder: Path, pattern: re.Pattern[str]) -> bool:
    """Returns whether the name of the first image in `folder` matches a pattern; `False` if it cannot be listed.

    All images in the folder have names of the same form, so any image can be checked. Hidden files are ignored, as in
    `image_names`.
    """
    try:
        with os.scandir(folder) as entries:
            files = (entry.name for entry in entries if not entry.is_dir())
            first = next((name for name in files if is_picture(os.fspath(folder), name)), None)
    except (OSError, ValueError):
        return False
    return first is not None and pattern.fullmatch(first) is not None


def parse_names(root: Path, folder: str, pattern: re.Pattern[str], expects: str) -> list[tuple[str, re.Match[str]]]:
    """Returns (path relative to `root`, match of the base name) of every image in `root/folder`, sorted.

    Args:
        root: the dataset's folder.
        folder: folder relative to `root`; empty for `root` itself.
        pattern: regular expression for the whole base name.
        expects: expected content of the dataset, with an example of a name.

    Raises:
        FedReIDError: if the folder is missing, unreadable or empty, or a name does not fit the pattern.
    """
    parsed = []
    for name in image_names(root / folder, expects):
        match = pattern.fullmatch(name)
        if match is None:
            raise FedReIDError(f"{root / folder / name}: the name does not parse; expected {expects}")
        parsed.append((f"{folder}/{name}" if folder else name, match))
    return parsed


def two_camera_rows(images: Iterable[Image], train: Collection[int], *, train_only: bool) -> list[Row]:
    """Returns rows with the `train` persons as training set; of the others, camera 1 is query and the rest gallery."""
    rows: list[Row] = []
    for path, person, camera in images:
        if person in train:
            rows.append((path, person, camera, TRAIN))
        elif not train_only:
            rows.append((path, person, camera, QUERY if camera == 1 else GALLERY))
    return rows
