"""Crops of persons without a split; docs/own_pictures.md describes the way from such a folder to a report.

    ROOT/PERSON/IMAGE      ROOT/PERSON/CAMERA/IMAGE      ROOT/IMAGE, with person and camera in the names
    ROOT/people.csv        columns path and identity, and camera and split if they are known

Names are parsed by the grammar of `data.names` or by `data.name_pattern`. A person `-1` or `junk` contains junk. A
person `distractor` contains images that are ranked and never correct. Both are in the gallery.

The split is drawn from (`data.split_seed`, `data.split`), unless a table has a column for it:

- Persons in a single camera are used for training only. Of the others, the share `data.test_ids` (default: half,
  rounded down) are test persons, the rest training persons.
- In every camera with at least two images of a test person, one random image is a query, and the others are in the
  gallery. A person with one image in every camera has one query from a random camera. Every query has a match in
  another camera.
- Without cameras, persons with a single image are used for training only, and one random image of a test person is the
  query.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fedreid_pl.data.names import camera_of_folder, parse_name
from fedreid_pl.data.readers.csv_table import how_found, the_table
from fedreid_pl.data.readers.drawn_split import random_state, shuffled
from fedreid_pl.data.readers.layout import Layout, ReadOptions
from fedreid_pl.data.readers.listing import Row, make_table, pictures_and_folders
from fedreid_pl.data.readers.named import Image, person_images, read_named
from fedreid_pl.data.readers.table_rows import read_lines
from fedreid_pl.data.readers.tables import find_tables, read_table
from fedreid_pl.data.samples import GALLERY, QUERY, TRAIN, SampleTable
from fedreid_pl.errors import FedReIDError, counted

EXPECTS = (
    "PERSON/IMAGE, PERSON/CAMERA/IMAGE, images with person and camera in their names, or a table of path and identity"
)
COLUMNS = ("path", "identity")


def read_crops(root: Path, name: str, options: ReadOptions) -> SampleTable:
    """Returns the samples below `root`, with a random split unless a table has a column for the split.

    Raises:
        FedReIDError: if the folder has none of the four forms or two of them, if names or lines cannot be parsed, or if
            there are too few persons for training and test.
    """
    if find_tables(root, COLUMNS):
        rows, found, has_cameras, split = _from_table(root)
    else:
        rows, found, has_cameras = _from_names(root, options.name_pattern)
        split = False
    remarks: list[str] = []
    if options.train_only:
        rows = [(*row[:3], TRAIN) for row in rows if row[1] >= 0 and (not split or row[3] == TRAIN)]
        if not rows:
            raise FedReIDError(f"{root}: contains no training image, only junk or images of other splits")
    elif not split:
        rows, remark = split_by_rule(root, rows, options, has_cameras)
        remarks = [remark]
    return make_table(name, root, rows, remarks, found=found, has_cameras=has_cameras)


def split_by_rule(
    root: Path, rows: Sequence[Row], options: ReadOptions, has_cameras: bool = True
) -> tuple[list[Row], str]:
    """Draws training persons, test persons and queries by the rules of this module.

    Returns:
        The rows with their splits, and one line that describes the split.

    Raises:
        FedReIDError: if there would be fewer than two training persons, or no test person.
    """
    images: dict[int, dict[int, list[str]]] = {}
    for path, person, camera, _ in rows:
        if person >= 0:
            images.setdefault(person, {}).setdefault(camera if has_cameras else 0, []).append(path)
    several = sorted(person for person, own in images.items() if len(own) > 1 or (not has_cameras and len(own[0]) > 1))
    state = random_state(options.seed, options.split, "crops")
    tested = set(shuffled(several, state)[: int(options.test_ids * len(several))])
    alone = len(images) - len(several)
    kind = "in at least two cameras" if has_cameras else "with at least two images"
    if not tested or len(images) - len(tested) < 2:
        raise FedReIDError(
            f"{root}: {len(images)} persons, {len(several)} of them {kind}: too few for two training persons and one "
            f"test person with data.test_ids={options.test_ids}; add persons{' or cameras' if has_cameras else ''}, or "
            "change data.test_ids"
        )
    queries: set[str] = set()
    for person in sorted(tested):
        queries.update(_queries(images[person], random_state(options.seed, options.split, "crops", person)))
    split = [
        (path, person, camera if has_cameras else int(part == GALLERY), part)
        for path, person, camera, part in (
            (path, person, camera, _split(path, person, tested, queries)) for path, person, camera, _ in rows
        )
    ]
    one = "in one camera" if has_cameras else "with one image"
    remark = (
        f"split by seed {options.seed}, split {options.split}: of {len(several)} persons {kind}, {len(tested)} are "
        f"test persons and {len(several) - len(tested)} training persons"
        + (f"; training only: {counted(alone, 'person')} {one}" if alone else "")
    )
    return split, remark


def _split(path: str, person: int, tested: set[int], queries: set[str]) -> int:
    if path in queries:
        return QUERY
    return GALLERY if person < 0 or person in tested else TRAIN


def _queries(cameras: Mapping[int, Sequence[str]], state: np.random.RandomState) -> list[str]:
    """Returns the queries among a person's images by camera."""
    many = [camera for camera in sorted(cameras) if len(cameras[camera]) > 1]
    chosen = many or shuffled(cameras, state)[:1]
    return [shuffled(cameras[camera], state)[0] for camera in chosen]


def _from_table(root: Path) -> tuple[list[Row], str, bool, bool]:
    table = read_table(the_table(root, COLUMNS, EXPECTS), COLUMNS, EXPECTS)
    lines = read_lines(table, root)
    if not lines:
        raise FedReIDError(f"{table.file}: contains no image")
    has_cameras, split = "camera" in table.columns, "split" in table.columns
    assumed = {TRAIN: 0, QUERY: 0, GALLERY: 1}
    rows: list[Row] = []
    for line in lines:
        part = line.split if line.split is not None else TRAIN
        rows.append((line.path, line.identity, assumed[part] if line.camera is None else line.camera, part))
    return rows, how_found(table, lines[0]), has_cameras, split


def _from_names(root: Path, pattern: str | None) -> tuple[list[Row], str, bool]:
    flat, folders = pictures_and_folders(root, EXPECTS)
    inner = [name for name in folders if holds_pictures(root / name)]
    if flat and inner:
        raise FedReIDError(
            f"{root}: images are in the folder itself ({flat[0]}) and in subfolders ({inner[0]}); put either all of "
            "them or none into folders of persons"
        )
    if not flat and not inner:
        raise FedReIDError(f"{root}: contains no image; expected {EXPECTS}")
    images = [Image(name, TRAIN) for name in flat] or person_images(root, "", TRAIN, EXPECTS)
    named = read_named(root, images, pattern)
    return named.rows, named.found, named.has_cameras


def holds_pictures(folder: Path, depth: int = 2) -> bool:
    """Returns whether there is an image in `folder` or up to `depth - 1` levels below it."""
    try:
        names, folders = pictures_and_folders(folder, EXPECTS)
    except FedReIDError:
        return False
    return bool(names) or (depth > 1 and any(holds_pictures(folder / name, depth - 1) for name in folders))


def find_crops(root: Path) -> list[Path]:
    """Returns the folders of clients: `root` itself, or several folders below it.

    `root` is one client if it contains a table, images, or folders of persons. It contains several clients if one of
    its folders has a table, images with several persons and cameras in their names, or folders of persons with folders
    of cameras.

    Raises:
        FedReIDError: if the subfolders may be persons or clients.
    """
    names, folders = pictures_and_folders(root, EXPECTS)
    if names or find_tables(root, COLUMNS):
        return [root]
    below = [root / folder for folder in folders]
    places = [place for place in below if holds_pictures(place, 3) or find_tables(place, COLUMNS)]
    kinds = {place: _kind(place) for place in places}
    found = set(kinds.values())
    if found <= {"person"}:
        return [root]
    if "person" not in found and "either" not in found:
        return places
    if found == {"either"}:
        cameras = {inner for place in places for inner in pictures_and_folders(place, EXPECTS)[1]}
        if 2 * len(cameras) <= len(places):  # many folders share few names of subfolders: these are cameras
            return [root]
        if len(places) * 2 <= len(cameras):
            return places
    examples = ", ".join(place.name for place in places[:2])
    raise FedReIDError(
        f"data.root={root}: its folders ({examples}, ...) may be persons or clients; set data.datasets=[.] if "
        f"they are persons of one client, or data.datasets=[{','.join(place.name for place in places[:2])},...] if "
        "each folder is a client"
    )


def _kind(folder: Path) -> str:
    """Returns `person`, `client`, or `either` if a folder may be both."""
    if find_tables(folder, COLUMNS):
        return "client"
    names, folders = pictures_and_folders(folder, EXPECTS)
    if names:
        parts = [parse_name(name) for name in names]
        said = {part.person for part in parts if part.camera is not None}
        both = all(part.person is not None and part.camera is not None for part in parts)
        if not both or len(said) < 2:
            return "person"
        return "either" if len(said) == len(names) or folder.name.isdecimal() else "client"
    inner = [name for name in folders if holds_pictures(folder / name, 2)]
    if inner and all(camera_of_folder(name) is not None and not name.isdecimal() for name in inner):
        return "person"
    if any(pictures_and_folders(folder / name, EXPECTS)[1] for name in inner):
        return "client"
    first = [name for person in inner[:5] for name in pictures_and_folders(folder / person, EXPECTS)[0]]
    if first and all(parse_name(name).camera is not None for name in first):
        return "client"
    return "either"


def describe_folder(root: Path) -> str:
    """Returns a description of a folder without a known dataset, and the option that reads it, if there is one."""
    try:
        names, folders = pictures_and_folders(root, EXPECTS)
    except FedReIDError as error:
        return str(error)
    if tables := find_tables(root, COLUMNS):
        return f"there is the table {tables[0]}: set data=crops to read it"
    if names:
        listed = f"{counted(len(names), 'image')}, such as {names[0]}"
        return f"the folder contains {listed}: set data=crops for crops of persons"
    for folder in folders:
        if holds_pictures(root / folder, 3) or find_tables(root / folder, COLUMNS):
            return (
                f"there are {len(folders):,} folders, such as {folder} with images in it: set data=crops if "
                "they are crops of persons"
            )
    listed = ", ".join(sorted(os.listdir(root))[:8])
    return f"there is {listed}" if listed else "the folder is empty"


def never(root: Path) -> bool:
    """Returns `False`: crops are read only if the user selects this layout, because any image folder could be crops."""
    return False


LAYOUT = Layout("crops", "crops of persons, not yet split", EXPECTS, never, read_crops, drawn=True, named=True)
