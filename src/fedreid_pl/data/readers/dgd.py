"""The layout of the formatting scripts of Domain Guided Dropout (Xiao et al., CVPR 2016), which FedReID also uses.

    ROOT/meta.json     {"identities": [person][view][path], ...}, path such as cam_0/00012_00000.png
    ROOT/split.json    {"trainval": [person, ...], "test_probe": [...], "test_gallery": [...]}
    ROOT/cam_0/...  ROOT/cam_1/...      or the same folders below ROOT/images

The number of a person is its position in `identities`, and the camera is the position of the view; a view may be empty.
The training images are those of `trainval` (or of `train` and `val`). Of a probe person, the first half of the views
are queries, and the rest is in the gallery. Persons that are only in `test_gallery` are in the gallery with all views.
Person 0 is an ordinary person.

VIPeR, CUHK01, PRID2011, i-LIDS and 3DPeS are distributed for FedReID in this form, with two views each. The views of
i-LIDS and 3DPeS were drawn at random, because the original datasets have no cameras.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fedreid_pl.data.readers.fedreid_processed import is_fedreid_processed
from fedreid_pl.data.readers.layout import Layout, ReadOptions
from fedreid_pl.data.readers.listing import Row, has_files, has_folders, make_table, missing_files, portable, read_text
from fedreid_pl.data.readers.market1501 import is_market1501
from fedreid_pl.data.readers.msmt17 import is_msmt17
from fedreid_pl.data.samples import GALLERY, QUERY, TRAIN, SampleTable
from fedreid_pl.errors import FedReIDError

EXPECTS = "meta.json, split.json and the images that meta.json names (cam_0/00012_00000.png)"
Persons = list[list[list[str]]]


def is_dgd(root: Path) -> bool:
    """Returns whether `root` has `meta.json` and `split.json`, and no layout that scripts create from these files."""
    others = (is_market1501, is_msmt17, is_fedreid_processed)
    return has_files(root, "meta.json", "split.json") and not any(recognise(root) for recognise in others)


def read_dgd(root: Path, name: str, options: ReadOptions) -> SampleTable:
    """Returns the samples of the split, sorted by split and path.

    Raises:
        FedReIDError: if one of the two files is missing or has another form, or if an image is missing.
    """
    persons = _persons(root / "meta.json")
    split = _split(root / "split.json", len(persons), options.train_only)
    rows: list[Row] = []
    for person in split["train"]:
        rows += _rows(persons[person], person, TRAIN, TRAIN)
    for person in split["probe"]:
        rows += _rows(persons[person], person, QUERY, GALLERY)
    for person in split["gallery"] - split["probe"]:
        rows += _rows(persons[person], person, GALLERY, GALLERY)
    if not rows:
        raise FedReIDError(f"{root / 'split.json'}: contains no person with an image")
    if not has_folders(root, rows[0][0].split("/")[0]) and has_folders(root, "images"):
        rows = [(f"images/{path}", person, camera, part) for path, person, camera, part in rows]
    missing = missing_files(root, [row[0] for row in rows])
    if missing:
        raise FedReIDError(f"{root / rows[missing[0]][0]}: no such image, but {root / 'meta.json'} lists it")
    return make_table(name, root, rows)


def _rows(views: list[list[str]], person: int, first: int, second: int) -> list[Row]:
    """Returns a person's images: the first half of the views in split `first`, the rest in split `second`."""
    half = len(views) // 2
    return [
        (path, person, view, first if view < half else second) for view, paths in enumerate(views) for path in paths
    ]


def _persons(path: Path) -> Persons:
    meta = _load(path)
    persons: Any = meta.get("identities") if isinstance(meta, dict) else None
    if not _is_nested(persons, 3):
        raise FedReIDError(f"{path}: expected 'identities': a list of persons, each a list of views, each of paths")
    return [[[portable(path) for path in paths] for paths in views] for views in persons]


def _is_nested(value: Any, depth: int) -> bool:
    if depth == 0:
        return isinstance(value, str) and bool(value)
    return isinstance(value, list) and all(_is_nested(item, depth - 1) for item in value)


def _split(path: Path, count: int, train_only: bool) -> dict[str, set[int]]:
    content = _load(path)
    keys = set(content) if isinstance(content, dict) else set()
    train = ["trainval"] if "trainval" in keys else ["train", "val"]
    wanted = train if train_only else [*train, "test_probe", "test_gallery"]
    if absent := [key for key in wanted if key not in keys]:
        expected = "trainval (or train and val), test_probe and test_gallery"
        raise FedReIDError(f"{path}: has no '{absent[0]}'; expected {expected}")
    for key in wanted:
        values = content[key]
        if not isinstance(values, list) or not all(type(item) is int and 0 <= item < count for item in values):
            raise FedReIDError(f"{path}: '{key}' is not a list of positions 0 to {count - 1} in meta.json's identities")
    split = {"train": {person for key in train for person in content[key]}, "probe": set(), "gallery": set()}
    if not train_only:
        split |= {"probe": set(content["test_probe"]), "gallery": set(content["test_gallery"])}
    if lonely := split["probe"] - split["gallery"]:
        raise FedReIDError(f"{path}: person {min(lonely)} is in test_probe but not in test_gallery")
    if both := split["train"] & (split["probe"] | split["gallery"]):
        raise FedReIDError(f"{path}: person {min(both)} is in the training set and in the test set")
    return split


def _load(path: Path) -> Any:
    try:
        return json.loads(read_text(path, EXPECTS))
    except (ValueError, RecursionError) as error:
        raise FedReIDError(f"{path}: is not valid JSON ({error})") from error


LAYOUT = Layout(
    "dgd",
    "meta.json and split.json (Domain Guided Dropout)",
    EXPECTS,
    is_dgd,
    read_dgd,
    found="person and camera from the order in meta.json",
)
