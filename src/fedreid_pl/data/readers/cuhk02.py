"""CUHK02 (Li and Wang, CVPR 2013).

    CUHK02/Dataset/P1/cam1/001_0001.png    P1/cam2 ... P5/cam2      or P1 to P5 directly in the folder

Five pairs of cameras, ten cameras in all, with 971, 306, 107, 193 and 239 persons: 1,816 persons with two images per
camera, 7,264 images of 160x60. The person is the number before the first `_`. Numbers start again in every pair; here
person 12 of pair P3 has the number 30012. Pair k has the cameras 2k-1 and 2k.

Protocol: P1 to P4 are the training set (1,577 persons / 6,308 images), cam1 of P5 is the query and cam2 the gallery
(239 persons, 478 and 478 images). There is one split. As a public set (`train_only`) all five pairs are read.

Persons of P1 are also in CUHK01: if a federation is tested on CUHK01, a public CUHK02 shows some of its test persons
(without labels).
"""

from __future__ import annotations

import re
from pathlib import Path

from fedreid_pl.data.readers.layout import Layout, ReadOptions
from fedreid_pl.data.readers.listing import Row, has_folders, make_table
from fedreid_pl.data.readers.original import holds, is_original, parse_names
from fedreid_pl.data.samples import GALLERY, QUERY, TRAIN, SampleTable

EXPECTS = "P1 to P5, each with cam1 and cam2 with images such as 001_0001.png (person before the _)"
NAME = re.compile(r"([0-9]{1,4})_[^.]*\.[^.]+")
PERSONS_PER_PAIR = 10_000
"""Distance between the person numbers of two pairs; a name has up to four digits."""
TEST_PAIR = 5


def is_cuhk02(root: Path) -> bool:
    """Returns whether `root` is CUHK02: it has a pair of cameras `P1`, or a folder `Dataset` with it."""
    return is_original(root, "cuhk02") and holds(root / _top(root) / "P1" / "cam1", NAME)


def read_cuhk02(root: Path, name: str, options: ReadOptions) -> SampleTable:
    """Returns pairs P1 to P4 as training set and P5 as query and gallery; all five as training set if `train_only`.

    Raises:
        FedReIDError: if a camera's folder is missing or a name has no person.
    """
    rows: list[Row] = []
    for pair in range(1, TEST_PAIR + 1):
        for view in (1, 2):
            split = TRAIN if pair != TEST_PAIR or options.train_only else (QUERY, GALLERY)[view - 1]
            for path, match in parse_names(root, f"{_top(root)}P{pair}/cam{view}", NAME, EXPECTS):
                rows.append((path, PERSONS_PER_PAIR * pair + int(match[1]), 2 * (pair - 1) + view, split))
    return make_table(name, root, rows)


def _top(root: Path) -> str:
    return "Dataset/" if has_folders(root, "Dataset") else ""


LAYOUT = Layout(
    "cuhk02",
    "CUHK02",
    EXPECTS,
    is_cuhk02,
    read_cuhk02,
    found="person from the number before the first _ and the pair of cameras, camera from the folder",
)
