"""QMUL i-LIDS MCTS, the pedestrian images (Zheng, Gong and Xiang, BMVC 2009); not the tracklets of iLIDS-VID.

    i-LIDS_Pedestrian/Persons/0001001.jpg

The dataset has 119 persons and 476 images, two to eight images of a person. A name consists of the person (four digits,
from 1) and the image (three digits).

The cameras are a convention, because the dataset has no camera annotation. As in Domain Guided Dropout (Xiao et al.,
CVPR 2016), whose data the benchmark of Zhuang et al. uses (its Table 1 prints "iLIDS-VID"), the images of a person are
shuffled, and the first half (rounded down) is called camera 1, the other half camera 2. The authors did not publish
their draw. Here the images are drawn once per person, independent of seed, split and other persons.

Protocol: half of the persons (rounded down) are for training. Of the others, camera 1 is the query and camera 2 the
gallery. `split` 0 is the same for all seeds: over persons in ascending order, those after the first half of
`RandomState(411).permutation(119)` are test persons. With all 119 persons this gives 59 / 248 training, 60 / 98 query
and 60 / 130 gallery persons / images, exactly as in Table 1, because the counts depend only on the number of images per
person. The persons of the authors are unknown: 411 is one of many seeds with these counts. Other splits are halves
drawn from (seed, split), with 59 and 60 persons but other numbers of images.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from fedreid_pl.data.readers.drawn_split import draw_halves, random_state, shuffled
from fedreid_pl.data.readers.layout import Layout, ReadOptions
from fedreid_pl.data.readers.listing import make_table
from fedreid_pl.data.readers.original import flat_folder, holds, is_original, parse_names, two_camera_rows
from fedreid_pl.data.samples import SampleTable

EXPECTS = "Persons with images such as 0001002.jpg (person 1, image 2)"
NAME = re.compile(r"([0-9]{4})[0-9]{3}\.[^.]+")
TABLE_1_SEED = 411


def is_ilids(root: Path) -> bool:
    """Returns whether `root` is i-LIDS: it contains (or is) a folder `Persons` with names of seven digits."""
    return is_original(root, "ilids") and holds(root / flat_folder(root, "ilids"), NAME)


def read_ilids(root: Path, name: str, options: ReadOptions) -> SampleTable:
    """Returns half of the persons as training set, and the others as query and gallery by pseudo camera.

    Raises:
        FedReIDError: if the folder is missing, a name does not have seven digits, or there are fewer than two persons.
    """
    paths: dict[int, list[str]] = {}
    for path, match in parse_names(root, flat_folder(root, "ilids"), NAME, EXPECTS):
        paths.setdefault(int(match[1]), []).append(path)
    images = []
    for person, own in paths.items():
        order = shuffled(own, random_state("ilids", "cameras", person))
        images += [(path, person, 1 if place < len(own) // 2 else 2) for place, path in enumerate(order)]
    drawn = random_state(options.seed, options.split, "ilids")
    train, _ = draw_halves(paths, np.random.RandomState(TABLE_1_SEED) if options.split == 0 else drawn, root)
    return make_table(name, root, two_camera_rows(images, train, train_only=options.train_only))


LAYOUT = Layout(
    "ilids",
    "i-LIDS (QMUL, 119 persons)",
    EXPECTS,
    is_ilids,
    read_ilids,
    drawn=True,
    found="person from the first four digits of the name, cameras drawn (nobody annotated them)",
)
