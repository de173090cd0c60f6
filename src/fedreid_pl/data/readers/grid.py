"""QMUL GRID, underground re-identification (Loy, Xiang and Gong, CVPR 2009).

    underground_reid/probe/0001_1_25004_107_32_106_221.jpeg
    underground_reid/gallery/0001_2_25023_116_134_128_330.jpeg    0000_1_...jpeg (775 of them)
    underground_reid/features_and_partitions.mat

250 persons with one image in each folder, and 775 gallery images of persons without a match, who all have the number 0:
distractors, ranked and never correct. 1,275 images from 8 cameras; a name begins with the person and the camera.

Protocol: 125 persons train, with both images; the others are the 125 queries, and their other images and all images of
person 0 the gallery of 900. `features_and_partitions.mat` holds ten official splits, numbers 0 to 9. Reading it takes
scipy (`pip install 'fedreid-pl[mat]'`). If the file or scipy is missing, each `split` is a random half drawn from
(seed, split), and if only scipy is missing, a warning says so: numbers of the two are not comparable one to one.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np

from fedreid_pl.data.readers.drawn_split import draw_halves, random_state
from fedreid_pl.data.readers.layout import Layout, ReadOptions
from fedreid_pl.data.readers.listing import Row, has_files, look_at, make_table
from fedreid_pl.data.readers.matlab_file import load_matlab
from fedreid_pl.data.readers.original import holds, is_original, parse_names
from fedreid_pl.data.samples import DISTRACTOR, GALLERY, QUERY, TRAIN, SampleTable
from fedreid_pl.errors import FedReIDError

EXPECTS = "probe and gallery with images such as 0001_1_25004_107_32_106_221.jpeg (person, camera)"
NAME = re.compile(r"([0-9]{1,9})_([0-9]{1,2})_[^.]*\.[^.]+")
PARTITIONS = "features_and_partitions.mat"


def is_grid(root: Path) -> bool:
    """Whether `root` looks like GRID: `probe` and `gallery`, with names of a person and a camera."""
    return is_original(root, "grid") and holds(root / "probe", NAME)


def read_grid(root: Path, name: str, options: ReadOptions) -> SampleTable:
    """Half of the persons, official or drawn, for training; the others as query and, with person 0, as gallery.

    Raises:
        FedReIDError: if a folder is missing, a name has no person and camera, a probe is of person 0, there are fewer
            than two persons, or the file of official splits cannot be read or lacks the split.
    """
    images = {
        split: [(path, int(match[1]), int(match[2])) for path, match in parse_names(root, folder, NAME, EXPECTS)]
        for split, folder in ((QUERY, "probe"), (GALLERY, "gallery"))
    }
    unmatched = next((path for path, person, _ in images[QUERY] if person == 0), None)
    if unmatched is not None:
        raise FedReIDError(f"{root / unmatched}: person 0 has no match and belongs into the folder gallery")
    train = _official(root / PARTITIONS, options.split) if has_files(root, PARTITIONS) else None
    if train is None:
        persons = {person for side in images.values() for _, person, _ in side} - {0}
        train, _ = draw_halves(persons, random_state(options.seed, options.split, "grid"), root)
    rows: list[Row] = []
    for split, side in images.items():
        for path, person, camera in side:
            if person in train:
                rows.append((path, person, camera, TRAIN))
            elif not options.train_only:
                rows.append((path, person or DISTRACTOR, camera, split))
    return make_table(name, root, rows)


def _official(file: Path, split: int) -> frozenset[int] | None:
    """The training persons of an official split, or `None` where scipy is not installed."""
    try:
        look_at(file)
        cells = load_matlab(file, "trainIdxAll")["trainIdxAll"][0]
        # each cell is a struct whose third field lists the training persons
        splits = [frozenset(np.ravel(cell[0][0][2]).astype(int).tolist()) for cell in cells]
    except ImportError:
        warnings.warn(
            f"{file}: its official splits take scipy (pip install 'fedreid-pl[mat]'); a drawn half is used instead",
            stacklevel=3,
        )
        return None
    except FedReIDError:
        raise
    except Exception as error:  # scipy raises whatever a damaged file leads it to
        raise FedReIDError(f"{file}: holds no readable trainIdxAll ({type(error).__name__}: {error})") from error
    if not 0 <= split < len(splits):
        raise FedReIDError(f"{file}: holds the splits 0 to {len(splits) - 1}, not {split}")
    return splits[split]


LAYOUT = Layout(
    "grid",
    "QMUL GRID",
    EXPECTS,
    is_grid,
    read_grid,
    drawn=True,
    found="person and camera from the first two numbers of the name",
)
