"""CUHK01 (Li, Zhao and Wang, ACCV 2012).

    CUHK01/campus/0001001.png ... 0971004.png

The dataset has 971 persons with four images of 160x60 each, 3,884 images. A name consists of the person (four digits,
from 1) and the image (three digits): images 1 and 2 are from the first camera, 3 and 4 from the second.

Protocol: a random half of the persons (rounded down) is for training. Of the others, both images of camera 1 are
queries, and both images of camera 2 are in the gallery: 485 persons / 1,940 training images, 972 queries and 972
gallery images of 486 persons. Every `split` is another half, drawn from (seed, split); there is no official split.
Other papers use one gallery image per person, or test on 100 persons. Persons of CUHK01 are also in pair P1 of CUHK02.
"""

from __future__ import annotations

import re
from pathlib import Path

from fedreid_pl.data.readers.drawn_split import draw_halves, random_state
from fedreid_pl.data.readers.layout import Layout, ReadOptions
from fedreid_pl.data.readers.listing import make_table
from fedreid_pl.data.readers.original import flat_folder, holds, is_original, parse_names, two_camera_rows
from fedreid_pl.data.samples import SampleTable

EXPECTS = "campus with images such as 0001004.png (person 1, image 4 of 1 to 4)"
NAME = re.compile(r"([0-9]{4})00([1-4])\.[^.]+")


def is_cuhk01(root: Path) -> bool:
    """Returns whether `root` is CUHK01: it contains (or is) a folder `campus` with names of seven digits."""
    return is_original(root, "cuhk01") and holds(root / flat_folder(root, "cuhk01"), NAME)


def read_cuhk01(root: Path, name: str, options: ReadOptions) -> SampleTable:
    """Returns a random half of the persons as training set, the others as query (camera 1) and gallery (camera 2).

    Raises:
        FedReIDError: if the folder is missing, a name has no person or no image from 1 to 4, or there are fewer than
            two persons.
    """
    images = [
        (path, int(match[1]), 1 if match[2] in "12" else 2)
        for path, match in parse_names(root, flat_folder(root, "cuhk01"), NAME, EXPECTS)
    ]
    state = random_state(options.seed, options.split, "cuhk01")
    train, _ = draw_halves((person for _, person, _ in images), state, root)
    return make_table(name, root, two_camera_rows(images, train, train_only=options.train_only))


LAYOUT = Layout(
    "cuhk01",
    "CUHK01",
    EXPECTS,
    is_cuhk01,
    read_cuhk01,
    drawn=True,
    found="person from the first four digits of the name, camera from the image's number (1, 2: 1; 3, 4: 2)",
)
