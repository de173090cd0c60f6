"""The layout of Market-1501 (Zheng et al., ICCV 2015) and of many converted datasets.

    ROOT/bounding_box_train/0002_c1s1_000451_03.jpg
    ROOT/bounding_box_test/-1_c1s1_000401_03.jpg
    ROOT/query/0001_c1s1_001051_00.jpg

Names are parsed by the grammar of `data.names` (the person's number at the beginning, then the camera: `c1s1`, `c001`,
`cam1`, ...), or by `data.name_pattern`. Names as in MSMT17 are supported too. In the test folder `-1` marks junk
(ignored by the protocol) and `0000` a distractor (ranked, never correct). If a query shows person 0, as in datasets
with numbers from 0 (converted MSMT17), `0000` is an ordinary person.

Distributed in this layout (training persons / images, queries, gallery images, cameras):

- Market-1501: 751 / 12,936, 3,368, 19,732 (3,819 of them junk), 6.
- DukeMTMC-reID (`0005_c2_f0046985.jpg`): 702 / 16,522, 2,228, 17,661, 8. No name marks junk or distractors; the 408
  persons in only one camera are in the gallery with their own numbers.
- CUHK03-NP (`cuhk03-np/{detected,labeled}`, `0001_c1_301.png`): 767 / 7,365, 1,400, 5,332 detected and 767 / 7,368,
  1,400, 5,328 labeled, 2.
- MSMT17, converted (`0000_c12_0000.jpg`): 1,041 / 32,621, 11,659, 82,161, 15.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedreid_pl.data.readers.layout import Layout, ReadOptions
from fedreid_pl.data.readers.listing import has_folders, image_names
from fedreid_pl.data.readers.named import Image, read_named
from fedreid_pl.data.samples import DISTRACTOR, GALLERY, QUERY, TRAIN, SampleTable

FOLDERS = {"bounding_box_train": TRAIN, "query": QUERY, "bounding_box_test": GALLERY}
EXPECTS = "bounding_box_train, query and bounding_box_test with images such as 0002_c1s1_000451_03.jpg"


def is_market1501(root: Path) -> bool:
    """Returns whether `root` has this layout: it has a training folder."""
    return has_folders(root, "bounding_box_train")


def read_market1501(
    root: Path, name: str | None = None, *, train_only: bool = False, name_pattern: str | None = None
) -> SampleTable:
    """Returns the samples below `root`, sorted by folder and file name.

    Args:
        root: the dataset's folder.
        name: name of the table; default: the name of the folder.
        train_only: read only `bounding_box_train` (an unlabelled public set has no other folder).
        name_pattern: the regular expression of `data.name_pattern`.

    Raises:
        FedReIDError: if a folder is missing or empty, or a file name has no person or no camera.
    """
    folders = ["bounding_box_train"] if train_only else list(FOLDERS)
    images = [
        Image(f"{folder}/{file}", FOLDERS[folder])
        for folder in folders
        for file in image_names(root / folder, f"Market-1501's layout ({', '.join(FOLDERS)})")
    ]
    named = read_named(root, images, name_pattern, needs_camera=True)
    columns = zip(*named.rows, strict=True)
    paths, (numbers, cameras, parts) = next(columns), (np.array(column, dtype=np.int64) for column in columns)
    if named.numbered and not ((numbers == 0) & (parts == QUERY)).any():
        numbers[(numbers == 0) & (parts == GALLERY)] = DISTRACTOR
    return SampleTable(
        name or root.name,
        root,
        paths,
        numbers,
        cameras,
        parts.astype(np.uint8),
        found=named.found,
        has_cameras=named.has_cameras,
    )


def _read(folder: Path, name: str, options: ReadOptions) -> SampleTable:
    return read_market1501(folder, name, train_only=options.train_only, name_pattern=options.name_pattern)


LAYOUT = Layout(
    "market1501",
    "Market-1501 and converted datasets",
    EXPECTS,
    is_market1501,
    _read,
    unused=("gt_bbox", "gt_query"),
    named=True,
)
