"""CAVIAR4REID (Cheng, Cristani, Stoppa, Bazzani and Murino, BMVC 2011).

    CAVIAR4REID/CAVIARa/0001001.jpg ... 0072010.jpg

The dataset has 72 persons and 1,220 images of many sizes: 50 persons with 20 images and 22 persons with 10. A name
consists of the person (four digits, from 1) and the image (three digits).

The camera is not in the name. By convention images 1 to 10 of a person are from the first camera and 11 to 20 from the
second. So 50 persons are seen by both cameras and 22 only by the first.

Protocol: half of the persons in both cameras (25, rounded down) are for training. Of the other 25, all images of camera
1 are queries and all images of camera 2 are in the gallery: 500 training, 250 query and 250 gallery images. Persons in
only one camera are not used. Every `split` is another random half, drawn from (seed, split).
"""

from __future__ import annotations

import re
from pathlib import Path

from fedreid_pl.data.readers.drawn_split import draw_halves, random_state
from fedreid_pl.data.readers.layout import Layout, ReadOptions
from fedreid_pl.data.readers.listing import make_table
from fedreid_pl.data.readers.original import Image, flat_folder, holds, is_original, parse_names, two_camera_rows
from fedreid_pl.data.samples import SampleTable
from fedreid_pl.errors import FedReIDError

EXPECTS = "CAVIARa with images such as 0001011.jpg (person 1, image 11 of 1 to 20)"
NAME = re.compile(r"([0-9]{4})([0-9]{3})\.[^.]+")
IMAGES_PER_CAMERA = 10


def is_caviar(root: Path) -> bool:
    """Returns whether `root` is CAVIAR4REID: it contains (or is) a folder `CAVIARa` with names of seven digits."""
    return is_original(root, "caviar") and holds(root / flat_folder(root, "caviar"), NAME)


def read_caviar(root: Path, name: str, options: ReadOptions) -> SampleTable:
    """Returns a random half of the persons in both cameras as training set, and the others as query and gallery.

    Raises:
        FedReIDError: if the folder is missing, a name has no person or no image from 1 to 20, or fewer than two persons
            are in both cameras.
    """
    images: list[Image] = []
    for path, match in parse_names(root, flat_folder(root, "caviar"), NAME, EXPECTS):
        number = int(match[2])
        if not 1 <= number <= 2 * IMAGES_PER_CAMERA:
            raise FedReIDError(f"{root / path}: image {number} belongs to neither camera; expected {EXPECTS}")
        images.append((path, int(match[1]), 1 if number <= IMAGES_PER_CAMERA else 2))
    both = {person for _, person, camera in images if camera == 1} & {
        person for _, person, camera in images if camera == 2
    }
    train, _ = draw_halves(both, random_state(options.seed, options.split, "caviar"), root)
    seen = [image for image in images if image[1] in both]
    return make_table(name, root, two_camera_rows(seen, train, train_only=options.train_only))


LAYOUT = Layout(
    "caviar",
    "CAVIAR4REID",
    EXPECTS,
    is_caviar,
    read_caviar,
    drawn=True,
    found="person from the first four digits of the name, camera from the image's number (1 to 10: 1, 11 to 20: 2)",
)
