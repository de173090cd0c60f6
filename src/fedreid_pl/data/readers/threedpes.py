"""3DPeS (Baltieri, Vezzani and Cucchiara, J-HGBU 2011), the snapshots.

    3DPeS/RGB/1_16_FRAME_17_RGB.bmp

The dataset has 193 persons and 1,012 images: several snapshot sequences ("views") of most persons, and one view of 29
persons. Only the person (before the first `_`) and the view (before the second) are read from a name.

The cameras are a convention: eight cameras were used, but the names do not contain the camera. As in Domain Guided
Dropout (Xiao et al., CVPR 2016), whose data the benchmark of Zhuang et al. uses, the views of a person are shuffled,
and the first half (rounded down) is called camera 1, the other half camera 2; all images of a view have the same
camera. The authors did not publish their draw. Here the views are drawn once per person, independent of seed, split and
other persons.

Protocol: 100 persons are test persons (half, rounded up, if the folder has fewer than 193), with camera 1 as query and
camera 2 as gallery; the others are for training. `split` 0 is the same for all seeds: over persons in ascending order,
the first 100 of `RandomState(9686).permutation(193)` are test persons. Other splits are drawn from (seed, split).

With all 193 persons, 93 are for training, 100 are in the gallery, and 1,012 images are used. Table 1 has 450 training,
246 query (of 86 persons) and 316 gallery images. Seed 9686 gives exactly these numbers for the authors' order of
persons and draw of views, which are both unknown. With the order and the views of this reader, the numbers of images
and of test persons with a query (those with at least two views) are close to Table 1, but not equal.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from fedreid_pl.data.readers.drawn_split import random_state, shuffled, shuffled_persons
from fedreid_pl.data.readers.layout import Layout, ReadOptions
from fedreid_pl.data.readers.listing import make_table
from fedreid_pl.data.readers.original import flat_folder, holds, is_original, parse_names, two_camera_rows
from fedreid_pl.data.samples import SampleTable

EXPECTS = "RGB with images such as 1_16_FRAME_17_RGB.bmp (person, view)"
NAME = re.compile(r"([0-9]{1,9})_([^_.]+)(?:_[^.]*)?\.[^.]+")
PERSONS, TESTED = 193, 100
TABLE_1_SEED = 9686


def is_threedpes(root: Path) -> bool:
    """Returns whether `root` is 3DPeS: it contains (or is) a folder `RGB` with names of a person and a view."""
    return is_original(root, "3dpes") and holds(root / flat_folder(root, "3dpes"), NAME)


def read_threedpes(root: Path, name: str, options: ReadOptions) -> SampleTable:
    """Returns random persons as training set, and the others as query and gallery by pseudo camera.

    Raises:
        FedReIDError: if the folder is missing, a name has no person and view, or there are fewer than two persons.
    """
    views: dict[int, dict[str, list[str]]] = {}
    for path, match in parse_names(root, flat_folder(root, "3dpes"), NAME, EXPECTS):
        views.setdefault(int(match[1]), {}).setdefault(match[2], []).append(path)
    images = []
    for person, own in views.items():
        for place, view in enumerate(shuffled(own, random_state("3dpes", "cameras", person))):
            images += [(path, person, 1 if place < len(own) // 2 else 2) for path in own[view]]
    drawn = random_state(options.seed, options.split, "3dpes")
    order = shuffled_persons(views, np.random.RandomState(TABLE_1_SEED) if options.split == 0 else drawn, root)
    tested = TESTED if len(order) >= PERSONS else len(order) - len(order) // 2
    return make_table(name, root, two_camera_rows(images, frozenset(order[tested:]), train_only=options.train_only))


LAYOUT = Layout(
    "3dpes",
    "3DPeS",
    EXPECTS,
    is_threedpes,
    read_threedpes,
    drawn=True,
    found="person from the number before the first _, cameras drawn from the views (names do not say them)",
)
