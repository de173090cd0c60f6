"""QMUL GRID, underground re-identification (Loy, Xiang and Gong, CVPR 2009).

    underground_reid/probe/0001_1_25004_107_32_106_221.jpeg
    underground_reid/gallery/0001_2_25023_116_134_128_330.jpeg    0000_1_...jpeg (775 of them)
    underground_reid/features_and_partitions.mat

250 persons have one image in each folder. The gallery has 775 more images of persons without a match, who all have the
number 0: they are distractors, ranked and never correct. In total there are 1,275 images from 8 cameras; a name begins
with the person and the camera.

Protocol: both images of 125 persons are for training. The probe images of the other 125 persons are the queries. Their
gallery images and all images of person 0 are the gallery of 900 images. `features_and_partitions.mat` has ten official
splits with numbers 0 to 9; reading it needs scipy (`pip install 'fedreid-pl[mat]'`). If the file or scipy is missing,
each `split` is a random half drawn from (seed, split). If only scipy is missing, a warning is issued, because results
of official and random splits are not comparable.
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
    """Returns whether `root` is GRID: it has `probe` and `gallery`, and names with a person and a camera."""
    return is_original(root, "grid") and holds(root / "probe", NAME)


def read_grid(root: Path, name: str, options: ReadOptions) -> SampleTable:
    """Returns an official or random half of the persons as training set, and the others as query and gallery.

    Raises:
        FedReIDError: if a folder is missing, a name has no person and camera, a probe shows person 0, there are fewer
            than two persons, or the file of official splits is unreadable or does not contain the split.
    """
    images = {
        split: [(path, int(match[1]), int(match[2])) for path, match in parse_names(root, folder, NAME, EXPECTS)]
        for split, folder in ((QUERY, "probe"), (GALLERY, "gallery"))
    }
    unmatched = next((path for path, person, _ in images[QUERY] if person == 0), None)
    if unmatched is not None:
        raise FedReIDError(f"{root / unmatched}: person 0 has no match; move this image to the folder gallery")
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
    """Returns the training persons of an official split, or `None` if scipy is not installed."""
    try:
        look_at(file)
        cells = load_matlab(file, "trainIdxAll")["trainIdxAll"][0]
        # each cell is a struct whose third field lists the training persons
        splits = [frozenset(np.ravel(cell[0][0][2]).astype(int).tolist()) for cell in cells]
    except ImportError:
        warnings.warn(
            f"{file}: reading the official splits needs scipy (pip install 'fedreid-pl[mat]'); a random half is used "
            "instead",
            stacklevel=3,
        )
        return None
    except FedReIDError:
        raise
    except Exception as error:  # scipy raises various exceptions for damaged files
        raise FedReIDError(f"{file}: contains no readable trainIdxAll ({type(error).__name__}: {error})") from error
    if not 0 <= split < len(splits):
        raise FedReIDError(f"{file}: contains the splits 0 to {len(splits) - 1}, not {split}")
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
