"""Market-1501's layout (Zheng et al., ICCV 2015), also that of many converted datasets.

    ROOT/bounding_box_train/0002_c1s1_000451_03.jpg
    ROOT/bounding_box_test/-1_c1s1_000401_03.jpg
    ROOT/query/0001_c1s1_001051_00.jpg

The person number stands before the first `_`, the camera (one or two digits) after `_c`. In the test folder
`-1` marks junk (ignored by the protocol) and `0000` a distractor (ranked, never correct), unless a query shows
person 0, as in datasets that count from 0 (converted MSMT17). Market-1501 itself has 751 training persons with
12,936 images, 3,368 queries and 19,732 gallery images from 6 cameras.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from fedreid_pl.data.samples import DISTRACTOR, GALLERY, JUNK, QUERY, TRAIN, SampleTable
from fedreid_pl.errors import FedReIDError

FOLDERS = {"bounding_box_train": TRAIN, "query": QUERY, "bounding_box_test": GALLERY}
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp")
NAME = re.compile(r"(-1|\d+)_c(\d{1,2})(?!\d)")


def is_market1501(root: Path) -> bool:
    """Whether `root` looks like a dataset of this layout (it has a training folder)."""
    return os.path.isdir(root / "bounding_box_train")  # False where Path.is_dir raises: no permission


def read_market1501(root: Path, name: str | None = None, *, train_only: bool = False) -> SampleTable:
    """The samples below `root`, sorted by folder and file name.

    Args:
        root: the dataset's folder.
        name: the table's name, by default the folder's.
        train_only: read `bounding_box_train` alone (an unlabelled public set has nothing else).

    Raises:
        FedReIDError: if a folder is missing or empty, or a file's name does not hold a person and a camera.
    """
    folders = ["bounding_box_train"] if train_only else list(FOLDERS)
    paths: list[str] = []
    identities: list[int] = []
    cameras: list[int] = []
    splits: list[int] = []
    for folder in folders:
        names = _images(root, folder)
        for file in names:
            match = NAME.match(file)
            if match is None:
                raise FedReIDError(
                    f"{root / folder / file}: the name does not start with a person and a camera, "
                    "such as 0002_c1s1_000451_03.jpg"
                )
            paths.append(f"{folder}/{file}")
            identities.append(JUNK if match[1] == "-1" else int(match[1]))
            cameras.append(int(match[2]))
            splits.append(FOLDERS[folder])
    numbers, parts = np.array(identities, dtype=np.int64), np.array(splits, dtype=np.uint8)
    if not ((numbers == 0) & (parts == QUERY)).any():
        numbers[(numbers == 0) & (parts == GALLERY)] = DISTRACTOR
    return SampleTable(name or root.name, root, tuple(paths), numbers, np.array(cameras, dtype=np.int64), parts)


def _images(root: Path, folder: str) -> list[str]:
    try:
        listed = os.listdir(root / folder)
        # hidden files are not images: macOS leaves ._0002_c1s1_000451_03.jpg beside the real one
        names = sorted(name for name in listed if name.lower().endswith(EXTENSIONS) and name[0] != ".")
    except FileNotFoundError as error:
        raise FedReIDError(
            f"{root / folder}: no such folder; expected Market-1501's layout ({', '.join(FOLDERS)})"
        ) from error
    except OSError as error:
        raise FedReIDError(f"{root / folder}: cannot be read ({error.strerror})") from error
    if not names:
        raise FedReIDError(f"{root / folder}: holds no image ({', '.join(EXTENSIONS)})")
    return names
