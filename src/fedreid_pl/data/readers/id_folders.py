"""Anyone's own pictures: one folder per person in each of train, query and gallery.

    ROOT/train/PERSON/IMAGE   ROOT/query/PERSON/IMAGE   ROOT/gallery/PERSON/IMAGE

PERSON is a number (`0012`, `12`; 0 is a person) or, if one of them is not, any name: names are numbered in
alphabetical order, and the same name is the same person in query and gallery. `-1` or `junk` holds junk, `distractor`
images that are ranked and never correct.

The camera is `_cN` in the image's name (one to three digits: `anna_c2_0001.jpg`), in every name or in none. Without
cameras every query has camera 0 and every gallery image camera 1 (training images 0), so that all gallery images of the
person are matches. Query and gallery then must not show the same shot twice, or the result is too good.
"""

from __future__ import annotations

import re
from pathlib import Path

from fedreid_pl.data.readers.csv_table import is_csv_table
from fedreid_pl.data.readers.cuhk03_mat import is_cuhk03_mat
from fedreid_pl.data.readers.dgd import is_dgd
from fedreid_pl.data.readers.fedreid_processed import is_fedreid_processed
from fedreid_pl.data.readers.layout import Layout, ReadOptions
from fedreid_pl.data.readers.listing import Row, has_folders, make_table, person_folders, person_numbers
from fedreid_pl.data.readers.market1501 import is_market1501
from fedreid_pl.data.readers.msmt17 import is_msmt17
from fedreid_pl.data.samples import DISTRACTOR, GALLERY, JUNK, QUERY, SPLITS, TRAIN, SampleTable
from fedreid_pl.errors import FedReIDError

EXPECTS = "train, query and gallery, each with one folder of images per person"
CODES = {"-1": JUNK, "junk": JUNK, "distractor": DISTRACTOR}
CAMERA = re.compile(r"(?:^|_)c([0-9]{1,3})(?![0-9])")
OTHERS = (is_market1501, is_msmt17, is_fedreid_processed, is_dgd, is_cuhk03_mat, is_csv_table)


def is_id_folders(root: Path) -> bool:
    """Whether `root` holds `train`, `query` and `gallery` and has none of the more special layouts."""
    return has_folders(root, "train", "query", "gallery") and not any(recognise(root) for recognise in OTHERS)


def read_id_folders(root: Path, name: str, options: ReadOptions) -> SampleTable:
    """The samples below `root`, sorted by split and path.

    Raises:
        FedReIDError: if a folder is missing or holds no image in a person's folder, two folders have one number, or
            some names hold a camera and others do not.
    """
    folders = ["train"] if options.train_only else list(SPLITS)
    persons = {folder: person_folders(root / folder, EXPECTS) for folder in folders}
    numbers = _numbers(root, persons)
    found: list[tuple[str, int, int | None, int]] = []
    for folder, images_of in persons.items():
        for person, images in images_of.items():
            for image in images:
                camera = CAMERA.search(image)
                path = f"{folder}/{person}/{image}"
                found.append((path, numbers[person], int(camera[1]) if camera else None, SPLITS[folder]))
    without = [path for path, _, camera, _ in found if camera is None]
    if without and len(without) < len(found):
        raise FedReIDError(
            f"{root / without[0]}: the name holds no camera but others do; give every name its camera, such as _c1"
        )
    assumed = {TRAIN: 0, QUERY: 0, GALLERY: 1}
    rows: list[Row] = [
        (path, who, assumed[split] if camera is None else camera, split) for path, who, camera, split in found
    ]
    return make_table(name, root, rows)


def _numbers(root: Path, persons: dict[str, dict[str, list[str]]]) -> dict[str, int]:
    """The number of every folder name, over all splits."""
    names = sorted({person for images_of in persons.values() for person in images_of if person not in CODES})
    if all(re.fullmatch(r"[0-9]{1,18}", person) for person in names):
        return CODES | person_numbers(root, names)
    return CODES | {person: number for number, person in enumerate(names)}


LAYOUT = Layout("id_folders", "one folder per person", EXPECTS, is_id_folders, read_id_folders)
