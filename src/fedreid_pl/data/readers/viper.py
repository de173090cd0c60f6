"""VIPeR (Gray, Brennan and Tao, PETS 2007).

    VIPeR/cam_a/000_45.bmp    VIPeR/cam_b/000_135.bmp

The dataset has 632 persons with one image of 128x48 from each of two cameras, 1,264 images. A name consists of the
person and the angle of view. Person numbers start at 0 and have gaps; person 0 is an ordinary person. The person is
always read from the name. Pairing files by their position in the two folders would fail if one file were missing.

Protocol: a random half of the persons (rounded down) is for training, with both cameras. Of the others, camera a (1) is
the query and camera b (2) the gallery: 316 persons / 632 images, 316 and 316 images. Papers average over 10 such halves
of their own; here every `split` is another half, drawn from (seed, split).
"""

from __future__ import annotations

import re
from pathlib import Path

from fedreid_pl.data.readers.drawn_split import draw_halves, random_state
from fedreid_pl.data.readers.layout import Layout, ReadOptions
from fedreid_pl.data.readers.listing import make_table
from fedreid_pl.data.readers.original import holds, is_original, parse_names, two_camera_rows
from fedreid_pl.data.samples import SampleTable

EXPECTS = "cam_a and cam_b with images such as 000_45.bmp (person, angle)"
NAME = re.compile(r"([0-9]{1,9})_[0-9]+\.[^.]+")


def is_viper(root: Path) -> bool:
    """Returns whether `root` is VIPeR: it has two cameras and names of a person and an angle."""
    return is_original(root, "viper") and holds(root / "cam_a", NAME)


def read_viper(root: Path, name: str, options: ReadOptions) -> SampleTable:
    """Returns a random half of the persons as training set, the others as query (camera 1) and gallery (camera 2).

    Raises:
        FedReIDError: if a camera's folder is missing, a name has no person, or there are fewer than two persons.
    """
    images = [
        (path, int(match[1]), camera)
        for camera, folder in enumerate(("cam_a", "cam_b"), start=1)
        for path, match in parse_names(root, folder, NAME, EXPECTS)
    ]
    state = random_state(options.seed, options.split, "viper")
    train, _ = draw_halves((person for _, person, _ in images), state, root)
    return make_table(name, root, two_camera_rows(images, train, train_only=options.train_only))


LAYOUT = Layout(
    "viper",
    "VIPeR",
    EXPECTS,
    is_viper,
    read_viper,
    drawn=True,
    found="person from the number before the first _, camera from the folder (cam_a: 1, cam_b: 2)",
)
