"""The layout of FedReID's preparation scripts (Zhuang et al., TOMM 2023), in which its authors distribute datasets.

    DATASET/pytorch/train_all/PERSON/IMAGE      all training images; or the two folders train and val with these images
    DATASET/pytorch/{query,gallery}/PERSON/IMAGE

The person is the folder's name as a number, padded (`0002`) or not (`2`); `-1` is junk. The camera is in the image's
name, parsed by the grammar of `data.names` or by `data.name_pattern`: `0002_c1s1_000451_03.jpg` as in Market-1501, or
`cam_1_00002_00000.png` (the third field repeats the person). In the gallery, person 0 is a distractor if the names have
the form of Market-1501 and no query shows person 0. With `cam_` names, 0 is the first person. In MSMT17 in this layout,
the numbers of training and test persons both start at 0, as in the original dataset.

The public set has only `train_all`. Client folders with the same images (`camera_clients`) are not read.
"""

from __future__ import annotations

from pathlib import Path

from fedreid_pl.data.readers.layout import Layout, ReadOptions
from fedreid_pl.data.readers.listing import has_folders, make_table, person_folders, person_numbers
from fedreid_pl.data.readers.market1501 import is_market1501
from fedreid_pl.data.readers.msmt17 import is_msmt17
from fedreid_pl.data.readers.named import Image, read_named
from fedreid_pl.data.samples import DISTRACTOR, GALLERY, QUERY, TRAIN, SampleTable

EXPECTS = "pytorch/ with train_all (or train and val), query and gallery, one folder per person in each"


def is_fedreid_processed(root: Path) -> bool:
    """Returns whether `root` or its folder `pytorch` has this layout, and `root` is not the original dataset."""
    written = any(has_folders(root, place) for place in ("train_all", "pytorch/train_all", "pytorch/train"))
    return written and not is_market1501(root) and not is_msmt17(root)


def read_fedreid_processed(root: Path, name: str, options: ReadOptions) -> SampleTable:
    """Returns the samples below `root/pytorch` (or below `root`, if it is that folder), sorted by split and path.

    Raises:
        FedReIDError: if a folder is missing or empty, a folder name is not a person, or an image name has no camera.
    """
    below = "" if has_folders(root, "train_all") else "pytorch/"
    parts = [folder for folder in ("train", "val") if has_folders(root, below + folder)]
    whole = has_folders(root, f"{below}train_all") or not parts
    splits = dict.fromkeys(["train_all"] if whole else parts, TRAIN)
    if not options.train_only:
        splits |= {"query": QUERY, "gallery": GALLERY}
    images: list[Image] = []
    like_market = True
    for folder, split in splits.items():
        place = root / below / folder
        persons = person_folders(place, EXPECTS)
        person_numbers(place, persons)  # raises an error for a name that is not a number
        for person, names in persons.items():
            like_market = like_market and not any(name[:4] == "cam_" for name in names)
            images += [Image(f"{below}{folder}/{person}/{name}", split, person) for name in names]
    named = read_named(root, images, options.name_pattern, needs_camera=True)
    rows = named.rows
    if like_market and not any(row[1] == 0 and row[3] == QUERY for row in rows):
        rows = [(row[0], DISTRACTOR, *row[2:]) if row[1] == 0 and row[3] == GALLERY else row for row in rows]
    return make_table(name, root, rows, found=named.found, has_cameras=named.has_cameras)


LAYOUT = Layout(
    "fedreid_processed",
    "FedReID's processed folders",
    EXPECTS,
    is_fedreid_processed,
    read_fedreid_processed,
    named=True,
)
