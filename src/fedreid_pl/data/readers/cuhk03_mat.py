"""CUHK03 as distributed (Li et al., CVPR 2014): all images are in one MATLAB file.

    cuhk03_release/cuhk-03.mat
    cuhk03_release/cuhk03_new_protocol_config_detected.mat      optional; also for labeled boxes

Reading the file needs h5py and scipy (`pip install 'fedreid-pl[mat]'`); no image is extracted to disk. The path of an
image continues inside the file: `cuhk03_release/cuhk-03.mat/detected/1_001_2_06.png` is the sixth image, from view 2,
of person 1 of the first pair of cameras. Images 1 to 5 of a person are from view 1, 6 to 10 from view 2, and some are
missing. The view is used as the camera, so each of the two cameras stands for five physical ones. The layout
`cuhk03_mat` reads the detected boxes, `cuhk03_mat_labeled` the boxes drawn by hand.

- With the file of the new protocol, the split is that of Zhong et al. (CVPR 2017): 767 persons / 7,365 training images,
  1,400 queries and 5,332 gallery images of 700 persons (labeled: 7,368, 1,400, 5,328), as in Table 1.
- Without this file, `split` 0 to 19 is one of the twenty splits in the MATLAB file: 100 test persons, all others for
  training. Every test image is a query and in the gallery. Papers report the single-shot CMC (`data.single_shot=10`).
"""

from __future__ import annotations

import functools
import importlib
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from fedreid_pl.data.readers.dgd import is_dgd
from fedreid_pl.data.readers.fedreid_processed import is_fedreid_processed
from fedreid_pl.data.readers.layout import Layout, ReadOptions
from fedreid_pl.data.readers.listing import Row, has_files, has_folders, look_at, make_table
from fedreid_pl.data.readers.market1501 import is_market1501
from fedreid_pl.data.readers.matlab_file import load_matlab
from fedreid_pl.data.readers.msmt17 import is_msmt17
from fedreid_pl.data.samples import GALLERY, QUERY, TRAIN, SampleTable
from fedreid_pl.errors import FedReIDError

EXPECTS = "cuhk-03.mat or cuhk03_release/cuhk-03.mat"
PLACES = ("cuhk-03.mat", "cuhk03_release/cuhk-03.mat")
NAME = re.compile(r"([1-9])_([0-9]{3,4})_([12])_([0-9]{2})\.png")
INSIDE = re.compile(r"(.*\.mat)/((?:detected|labeled)/[^/]+)", re.DOTALL)
VIEW = 5  # images of a person in each view

Place = tuple[int, int, int]
"""Pair of cameras, person and image, all from 1."""


def inside_mat(path: str) -> bool:
    """Returns whether a path continues inside a MATLAB file."""
    return ".mat/" in path and INSIDE.fullmatch(path) is not None


def container(path: str) -> str:
    """Returns the file that contains an image: `path` itself, or the MATLAB file in it."""
    match = INSIDE.fullmatch(path) if ".mat/" in path else None
    return match[1] if match else path


def is_cuhk03_mat(root: Path) -> bool:
    """Returns whether `root` contains the MATLAB file of CUHK03 and no converted version of it."""
    others = (is_market1501, is_msmt17, is_fedreid_processed, is_dgd)
    converted = any(has_folders(root, f"{boxes}/bounding_box_train") for boxes in ("detected", "labeled"))
    found = any(has_files(root, place) for place in PLACES)
    return found and not converted and not any(recognise(root) for recognise in others)


def read_cuhk03_mat(root: Path, name: str, options: ReadOptions, boxes: str = "detected") -> SampleTable:
    """Returns the samples of one kind of boxes, `detected` or `labeled`.

    Raises:
        FedReIDError: if h5py or scipy is missing, or if a file is unreadable or incomplete.
    """
    place = next((place for place in PLACES if has_files(root, place)), None)
    if place is None:
        raise FedReIDError(f"{root}: has no {PLACES[0]}; expected {EXPECTS}")
    look_at(root / place)
    file = str(root / place)
    protocol = next(
        (
            folder / f"cuhk03_new_protocol_config_{boxes}.mat"
            for folder in (Path(file).parent, root)
            if has_files(folder, f"cuhk03_new_protocol_config_{boxes}.mat")
        ),
        None,
    )
    images = set(_images(file, boxes))
    chosen = _classic(file, images, options.split) if protocol is None else _protocol(protocol, images, file)
    rows: list[Row] = []
    for (pair, person, image), identity, split in chosen:
        view = 1 if image <= VIEW else 2
        path = f"{place}/{boxes}/{pair}_{person:03d}_{view}_{image:02d}.png"
        if split == TRAIN or not options.train_only:
            rows.append((path, identity, view, split))
    return make_table(name, root, rows)


def read_mat_image(path: str) -> np.ndarray:
    """Returns the pixels `[H, W, 3]` uint8 of an image in `cuhk-03.mat`.

    Raises:
        FedReIDError: under the conditions of `read_cuhk03_mat`, or if the file contains no such image.
    """
    file = container(path)
    boxes, _, name = path[len(file) + 1 :].partition("/")
    pair, person, image = _place(name, path)
    content = _open(file)
    try:
        pixels = content[content[content[boxes][0][pair - 1]][image - 1][person - 1]][:].T
    except Exception as error:  # h5py raises various exceptions for damaged files
        raise FedReIDError(f"{path}: {file} contains no such image ({type(error).__name__})") from error
    if pixels.dtype != np.uint8 or pixels.ndim != 3:
        raise FedReIDError(f"{path}: is not an image with three channels")
    return np.ascontiguousarray(pixels)


def _images(file: str, boxes: str) -> list[Place]:
    content = _open(file)
    try:
        return [
            (pair, person, image)
            for pair, reference in enumerate(content[boxes][0], start=1)
            for image, persons in enumerate(content[reference], start=1)
            for person, cell in enumerate(persons, start=1)
            if content[cell].ndim == 3 and content[cell].size
        ]
    except Exception as error:  # h5py raises various exceptions for damaged files
        raise FedReIDError(f"{file}: contains no readable cells '{boxes}' ({type(error).__name__}: {error})") from error


def _classic(file: str, images: set[Place], split: int) -> list[tuple[Place, int, int]]:
    content = _open(file)
    try:
        splits = [content[reference][:].T.astype(int).tolist() for reference in content["testsets"][0]]
    except Exception as error:
        raise FedReIDError(f"{file}: contains no readable 'testsets' ({type(error).__name__}: {error})") from error
    if split >= len(splits):
        raise FedReIDError(f"data.split={split}: {file} contains the splits 0 to {len(splits) - 1}")
    tested = {(pair, person) for pair, person in splits[split]}
    rows = []
    for place in images:
        identity = 10_000 * place[0] + place[1]
        sides = (QUERY, GALLERY) if place[:2] in tested else (TRAIN,)
        rows += [(place, identity, side) for side in sides]
    return rows


def _protocol(file: Path, images: set[Place], mat: str) -> list[tuple[Place, int, int]]:
    look_at(file)
    try:
        content = load_matlab(file)
        names = [str(np.ravel(cell)[0]) for cell in np.ravel(content["filelist"])]
        labels = np.ravel(content["labels"]).astype(int).tolist()
        chosen = [
            (names[index], labels[index], split)
            for key, split in (("train_idx", TRAIN), ("query_idx", QUERY), ("gallery_idx", GALLERY))
            for index in (np.ravel(content[key]).astype(int) - 1).tolist()
        ]
    except ImportError as error:
        raise FedReIDError(f"{file}: reading this file needs scipy: pip install 'fedreid-pl[mat]'") from error
    except FedReIDError:
        raise
    except Exception as error:  # scipy raises various exceptions for damaged files
        raise FedReIDError(f"{file}: is not a file of the new protocol ({type(error).__name__}: {error})") from error
    rows = [(_place(name, f"{file}: {name}"), identity, split) for name, identity, split in chosen]
    missing = next(
        (name for (place, _, _), (name, _, _) in zip(rows, chosen, strict=True) if place not in images), None
    )
    if missing is not None:
        raise FedReIDError(f"{file}: lists {missing}, but {mat} does not contain this image")
    return rows


def _place(name: str, what: str) -> Place:
    match = NAME.fullmatch(name)
    if match is None:
        raise FedReIDError(f"{what}: is not a name of an image of CUHK03, such as 1_001_2_06.png")
    return int(match[1]), int(match[2]), int(match[4])


def _open(file: str) -> Any:
    try:
        state = os.stat(file)
        return _opened(file, state.st_mtime_ns, state.st_size)
    except ImportError as error:
        raise FedReIDError(
            f"{file}: reading images in a MATLAB file needs h5py: pip install 'fedreid-pl[mat]'; or use CUHK03-NP, "
            "which is distributed as image files"
        ) from error
    except OSError as error:
        raise FedReIDError(f"{file}: is not a readable MATLAB file of version 7.3 ({error})") from error


@functools.lru_cache(maxsize=4)
def _opened(file: str, changed: int, size: int) -> Any:
    return importlib.import_module("h5py").File(file, "r")


def _layout(boxes: str) -> Layout:
    detected = boxes == "detected"
    return Layout(
        "cuhk03_mat" if detected else f"cuhk03_mat_{boxes}",
        f"CUHK03, the original MATLAB file, {boxes} boxes",
        EXPECTS,
        is_cuhk03_mat if detected else lambda root: False,  # only the user can choose labeled boxes
        lambda root, name, options: read_cuhk03_mat(root, name, options, boxes),
        found="person and camera from the place in the MATLAB file",
    )


LAYOUTS = (_layout("detected"), _layout("labeled"))
