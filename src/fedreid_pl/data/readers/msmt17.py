"""MSMT17 as distributed (Wei et al., CVPR 2018), V1 and V2 (faces blurred).

    MSMT17_V1/train/0000/0000_000_01_0303morning_0015_0.jpg          test/...
    MSMT17_V2/mask_train_v2/...                                      mask_test_v2/...
    list_train.txt  list_val.txt  list_query.txt  list_gallery.txt   lines: 0000/0000_000_01_0303morning_0015_0.jpg 0

The lists contain the images: train and val (both for training) relative to the training folder, query and gallery
relative to the test folder. The camera, 01 to 15, is the third `_` field of the base name. Train and test have
different persons, but both number them from 0. The numbers of test persons are therefore shifted past the last training
person. Person 0 is an ordinary person, and there are neither junk images nor distractors.

1,041 training persons with 32,621 images, 11,659 queries and 82,161 gallery images of 3,060 persons, 15 cameras.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from fedreid_pl.data.readers.layout import Layout, ReadOptions
from fedreid_pl.data.readers.listing import Row, has_files, has_folders, make_table, missing_files, portable, read_text
from fedreid_pl.data.readers.market1501 import is_market1501
from fedreid_pl.data.samples import GALLERY, QUERY, TRAIN, SampleTable
from fedreid_pl.errors import FedReIDError

LISTS = {"list_train.txt": TRAIN, "list_val.txt": TRAIN, "list_query.txt": QUERY, "list_gallery.txt": GALLERY}
EXPECTS = f"train and test (V1) or mask_train_v2 and mask_test_v2 (V2), and {', '.join(LISTS)}"
LINE = re.compile(r"(?P<path>(?:[^/]+/)*[0-9]+_[0-9]+_(?P<camera>[0-9]{2})_[^/]*)\s+(?P<label>[0-9]{1,9})", re.ASCII)


def is_msmt17(root: Path) -> bool:
    """Returns whether `root` is MSMT17: it has a training folder and one of the lists, and is not converted."""
    trains = [folder for folder in ("train", "mask_train_v2") if has_folders(root, folder)]
    return bool(trains) and any(has_files(root, name) for name in LISTS) and not is_market1501(root)


def read_msmt17(root: Path, name: str, options: ReadOptions) -> SampleTable:
    """Returns the samples of the lists, sorted by split and path.

    Raises:
        FedReIDError: if a list is missing, a line is malformed, or an image is listed twice or missing.
    """
    version = ("mask_train_v2", "mask_test_v2") if has_folders(root, "mask_train_v2") else ("train", "test")
    rows: list[Row] = []
    seen: set[str] = set()
    first_test = 0  # one past the last person of train
    for file, split in LISTS.items():
        if options.train_only and split != TRAIN:
            continue
        listed = _read_list(root / file, version[split != TRAIN], split, first_test if split != TRAIN else 0, seen)
        rows += listed
        if split == TRAIN:
            first_test = max([first_test, *(row[1] + 1 for row in listed)])
    return make_table(name, root, rows, _gaps(root, rows, first_test))


def _gaps(root: Path, rows: Sequence[Row], first_test: int) -> Iterator[str]:
    """Yields remarks on missing person numbers; the lists should have all numbers from 0."""
    for files, first, persons in (
        ("list_train.txt and list_val.txt", 0, {row[1] for row in rows if row[3] == TRAIN}),
        ("list_query.txt and list_gallery.txt", first_test, {row[1] for row in rows if row[3] != TRAIN}),
    ):
        absent = set(range(first, max(persons, default=first - 1) + 1)) - persons
        if absent:
            yield (
                f"{root}: no line of {files} has person {min(absent) - first}, though persons go up to "
                f"{max(persons) - first} ({len(absent):,} are missing); if the dataset should be whole, unpack it again"
            )


def _read_list(file: Path, folder: str, split: int, shift: int, seen: set[str]) -> list[Row]:
    rows: list[Row] = []
    numbers: list[int] = []  # of the rows' lines
    for number, line in enumerate(read_text(file, EXPECTS).splitlines(), start=1):
        if not (line := line.strip()):
            continue
        match = LINE.fullmatch(portable(line))
        if match is None:
            raise FedReIDError(
                f"{file}, line {number}: {line[:200]!r} is not an image and a person, "
                "such as 0000/0000_000_01_0303morning_0015_0.jpg 0"
            )
        path = f"{folder}/{match['path']}"
        if path in seen:
            raise FedReIDError(f"{file}, line {number}: {match['path']} is listed a second time")
        seen.add(path)
        rows.append((path, int(match["label"]) + shift, int(match["camera"]), split))
        numbers.append(number)
    if not rows:
        raise FedReIDError(f"{file}: lists no image")
    missing = missing_files(file.parent, [row[0] for row in rows])
    if missing:
        raise FedReIDError(
            f"{file}, line {numbers[missing[0]]}: there is no image {file.parent / rows[missing[0]][0]}; "
            "extract the archive again"
        )
    return rows


LAYOUT = Layout(
    "msmt17",
    "MSMT17 (V1, V2)",
    EXPECTS,
    is_msmt17,
    read_msmt17,
    found="person from the lists, camera from the third number of the name",
)
