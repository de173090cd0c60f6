"""PRID2011 (Hirzer, Beleznai, Roth and Bischof, SCIA 2011).

    prid_2011/single_shot/cam_a/person_0001.png             cam_b/person_0749.png
    prid_2011/multi_shot/cam_a/person_0001/0001.png         cam_b/person_0749/0012.png

The dataset has 385 persons in camera a and 749 in camera b, with images of 128x64. Numbers 1 to 200 are the same person
in both cameras. Above 200, the same number means different persons in the two cameras, so here person 345 of camera b
has the number 10345. Camera a is 1, camera b is 2.

The protocol is that of Domain Guided Dropout (Xiao et al., CVPR 2016), whose data the benchmark of Zhuang et al. uses:

- Half of the shared persons (rounded down) and all persons only in camera a are for training, with up to 10 frames of
  multi_shot per camera. A person without a folder in multi_shot has no frames there.
- Of the other shared persons, the single_shot image in camera a is the query, and that in camera b is in the gallery.
  The gallery also has the single_shot images of all persons only in camera b.

With the full data there are 285 training persons (100 shared, 185 only in camera a), 100 queries and 649 gallery
images, as in Table 1. The 3,744 training images of Table 1 (2,748 of camera a, 996 of camera b) belong to the half that
the authors drew, which is unknown. Some persons have fewer than 10 frames, so another half may have more or fewer
images. Halves and frames are drawn from (seed, split). Other papers train on single_shot (200 images), or use the 178
persons with long tracks.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from fedreid_pl.data.readers.drawn_split import draw_halves, random_state, shuffled
from fedreid_pl.data.readers.layout import Layout, ReadOptions
from fedreid_pl.data.readers.listing import Row, has_folders, image_names, make_table
from fedreid_pl.data.readers.original import holds, is_original, parse_names
from fedreid_pl.data.samples import GALLERY, QUERY, TRAIN, SampleTable
from fedreid_pl.errors import FedReIDError

EXPECTS = (
    "single_shot and multi_shot, each with cam_a and cam_b: single_shot/cam_a/person_0001.png, "
    "multi_shot/cam_a/person_0001/0001.png"
)
NAME = re.compile(r"(person_([0-9]{1,4}))\.[^.]+")
CAMERAS = ("cam_a", "cam_b")
SHARED = 200
"""Largest number that means the same person in both cameras."""
CAMERA_B_ONLY = 10_000
"""Offset of the person numbers of camera b above `SHARED`; a name has up to four digits."""
FRAMES = 10


def is_prid2011(root: Path) -> bool:
    """Returns whether `root` is PRID2011: it has `single_shot` with two cameras and names such as person_0001."""
    return is_original(root, "prid2011") and holds(root / "single_shot" / "cam_a", NAME)


def read_prid2011(root: Path, name: str, options: ReadOptions) -> SampleTable:
    """Returns half of the shared persons and those only in camera a as training set, the others as query and gallery.

    Raises:
        FedReIDError: if a camera's folder is missing, a name has no person, a person's multi_shot folder is empty, or
            there are fewer than two shared persons.
    """
    single = [_single_shot(root, camera) for camera in CAMERAS]
    shared = single[0].keys() & single[1].keys()
    train, test = draw_halves(shared, random_state(options.seed, options.split, "prid2011"), root / "single_shot")
    rows: list[Row] = []
    for number, camera in enumerate(CAMERAS, start=1):
        folder = f"multi_shot/{camera}"
        if not has_folders(root, folder):
            raise FedReIDError(f"{root / folder}: no such folder; expected {EXPECTS}")
        for person, (_, own) in single[number - 1].items():
            if person in train or (number == 1 and person not in shared):
                state = random_state(options.seed, options.split, "prid2011", "frames", number, person)
                paths = _frames(root, f"{folder}/{own}", state)
                rows += [(path, person, number, TRAIN) for path in paths]
    if not options.train_only:
        rows += [(single[0][person][0], person, 1, QUERY) for person in test]
        rows += [(path, person, 2, GALLERY) for person, (path, _) in single[1].items() if person not in train]
    return make_table(name, root, rows)


def _single_shot(root: Path, camera: str) -> dict[int, tuple[str, str]]:
    """Returns path and base name (without extension) of the image of every person of a camera, by ascending number."""
    found: dict[int, tuple[str, str]] = {}
    for path, match in parse_names(root, f"single_shot/{camera}", NAME, EXPECTS):
        number = int(match[2])
        person = number + CAMERA_B_ONLY if camera == "cam_b" and number > SHARED else number
        if person in found:
            raise FedReIDError(f"{root / path}: a second image of the person in {found[person][0]}; remove one")
        found[person] = (path, match[1])
    return dict(sorted(found.items()))


def _frames(root: Path, folder: str, state: np.random.RandomState) -> list[str]:
    """Returns the paths of up to ten random frames of a person in a camera."""
    if not has_folders(root, folder):
        return []
    return [f"{folder}/{frame}" for frame in shuffled(image_names(root / folder, EXPECTS), state)[:FRAMES]]


LAYOUT = Layout(
    "prid2011",
    "PRID2011",
    EXPECTS,
    is_prid2011,
    read_prid2011,
    drawn=True,
    unused=("multi_shot",),
    found="person from the number of the name, camera from the folder (cam_a: 1, cam_b: 2)",
)
