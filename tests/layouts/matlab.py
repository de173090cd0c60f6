"""CUHK03's MATLAB file: cells of cells of images, stored as in MATLAB 7.3, with reversed dimensions."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import h5py
import numpy as np
import scipy.io
from PIL import Image

from .disk import picture
from .record import GALLERY, QUERY, TRAIN, Miniature, Shot

PERSONS = (4, 3, 2)
"""Number of persons of every pair of cameras."""
ABSENT = {(1, 1, 3), (1, 1, 10), (2, 2, 1), (3, 1, 7)}
"""Pair, person and image of empty cells."""
SPLITS = ([(1, 2), (3, 1)], [(1, 1), (2, 3)])
"""Test persons in each of the file's splits."""


def name_of(pair: int, person: int, image: int) -> str:
    """Returns an image's name in the protocol's files."""
    return f"{pair}_{person:03d}_{1 if image <= 5 else 2}_{image:02d}.png"


def places() -> list[tuple[int, int, int]]:
    """Yields pair, person and image of all existing images."""
    return [
        (pair, person, image)
        for pair, count in enumerate(PERSONS, 1)
        for person in range(1, count + 1)
        for image in range(1, 11)
        if (pair, person, image) not in ABSENT
    ]


def pixels(boxes: str, pair: int, person: int, image: int) -> np.ndarray:
    """Returns the drawn image of a cell, `[H, W, 3]`."""
    return np.asarray(Image.open(io.BytesIO(picture(f"{boxes}/{name_of(pair, person, image)}"))))


def matlab_file() -> bytes:
    """Writes `cuhk-03.mat` with both kinds of boxes and two splits."""
    stream, there = io.BytesIO(), set(places())
    with h5py.File(stream, "w") as file:
        store = file.create_group("#refs#")

        def keep(values: np.ndarray) -> h5py.Reference:
            return store.create_dataset(f"r{len(store)}", data=values.T).ref

        def cells(rows: Sequence[Sequence[h5py.Reference]]) -> np.ndarray:
            table = np.empty((len(rows), len(rows[0])), dtype=h5py.ref_dtype)
            for row, values in enumerate(rows):
                for column, value in enumerate(values):
                    table[row, column] = value
            return table

        def reversed_dataset(group: h5py.Group, key: str, rows: Sequence[Sequence[h5py.Reference]]) -> h5py.Dataset:
            return group.create_dataset(key, data=cells(list(zip(*rows, strict=True))), dtype=h5py.ref_dtype)

        for boxes in ("detected", "labeled"):
            pairs = []
            for pair, count in enumerate(PERSONS, 1):
                rows = [
                    [
                        keep(pixels(boxes, pair, person, image) if (pair, person, image) in there else np.zeros((0, 0)))
                        for image in range(1, 11)
                    ]
                    for person in range(1, count + 1)
                ]
                pairs.append([reversed_dataset(store, f"{boxes}{pair}", rows).ref])
            reversed_dataset(file, boxes, pairs)
        reversed_dataset(file, "testsets", [[keep(np.array(split, dtype=float))] for split in SPLITS])
    return stream.getvalue()


def protocol_file(wanted: Sequence[tuple[str, int, str]]) -> bytes:
    """Writes the new protocol's file from (name, label, split); positions start at 1."""
    names = sorted({name for name, _, _ in wanted}, reverse=True)
    labels = {name: label for name, label, _ in wanted}
    content = {
        "filelist": np.array([[name] for name in names], dtype=object),
        "labels": np.array([[labels[name]] for name in names]),
    }
    for split, key in ((TRAIN, "train_idx"), (QUERY, "query_idx"), (GALLERY, "gallery_idx")):
        content[key] = np.array([[1 + names.index(name)] for name, _, part in wanted if part == split])
    stream = io.BytesIO()
    scipy.io.savemat(stream, content)
    return stream.getvalue()


def protocol_shots() -> list[tuple[tuple[int, int, int], str]]:
    """Makes a protocol: pair 1 except person 2 trains; of all others, one image of each view is a query."""
    rows = []
    for place in places():
        pair, person, image = place
        if pair == 1 and person != 2:
            rows.append((place, TRAIN))
        elif pair < 3:
            rows.append((place, QUERY if image in (2, 6) else GALLERY))
    return rows


def with_protocol(boxes: str = "detected", folder: str = "cuhk03_release") -> Miniature:
    """Writes the MATLAB file and the new protocol's file."""
    rows = protocol_shots()
    wanted = [(name_of(*place), 10 * place[0] + place[1], split) for place, split in rows]
    shots = [
        Shot(f"{folder}/cuhk-03.mat/{boxes}/{name_of(*place)}", place[:2], 1 if place[2] <= 5 else 2, split)
        for place, split in rows
    ]
    texts = {
        f"{folder}/cuhk-03.mat": matlab_file(),
        f"{folder}/cuhk03_new_protocol_config_{boxes}.mat": protocol_file(wanted),
    }
    persons = {shot.path: shot.person for shot in shots}
    return Miniature("cuhk03_mat", (), persons, tuple(shots), texts=texts)


MATLAB: dict[str, Callable[[], Miniature]] = {"cuhk03_original": with_protocol}
