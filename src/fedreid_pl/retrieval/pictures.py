"""Image input of the user: files, folders, arrays, tensors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedreid_pl.data.names import parse_name, plain_number
from fedreid_pl.data.readers.picture_files import is_picture
from fedreid_pl.errors import FedReIDError

Pictures = str | Path | Sequence[str | Path] | np.ndarray | Sequence[np.ndarray] | Tensor

AHEAD = 3  # number of batches that are decoded in advance


def pictures_in(folder: Path) -> list[Path]:
    """Returns every picture below a folder, sorted by path; hidden files and folders are skipped.

    Raises:
        FedReIDError: if the folder contains no picture.
    """
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "."]
        found += [Path(place) / name for name in names if name[0] != "." and is_picture(place, name)]
    if not found:
        raise FedReIDError(f"{folder}: contains no picture")
    return sorted(found)


def persons_of(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns person and camera of every image; the camera is empty if unknown.

    The person is the first folder of a name. Without a folder, the person is parsed from the file name by the grammar
    of docs/datasets.md; if there is none, it is the file name. The camera is the second folder, or parsed from the
    name.

    >>> persons_of(["ann/1.jpg", "ann/door/2.jpg", "0012_c3_000451.jpg", "me.jpg"])
    (['ann', 'ann', '0012', 'me'], ['', 'door', '3', ''])
    """
    persons, cameras = [], []
    for name in names:
        *folders, file = name.split("/")
        said = parse_name(file)
        persons.append(folders[0] if folders else said.person or Path(file).stem)
        camera = folders[1] if len(folders) > 1 else said.camera
        cameras.append(plain_number(camera) if camera else "")
    return persons, cameras


def read_ahead(read: Callable[[range], Tensor], ranges: Sequence[range]) -> Iterator[Tensor]:
    """Yields `read(range)` for every range in order, and reads a few ranges in advance in threads."""
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        waiting = [pool.submit(read, rows) for rows in ranges[:AHEAD]]
        try:
            for number in range(len(ranges)):
                batch = waiting.pop(0).result()
                if number + AHEAD < len(ranges):
                    waiting.append(pool.submit(read, ranges[number + AHEAD]))
                yield batch
        finally:
            for unread in waiting:
                unread.cancel()


def are_paths(pictures: Any) -> bool:
    """Returns whether `pictures` is a list of paths."""
    return (
        isinstance(pictures, Sequence)
        and len(pictures) > 0
        and all(isinstance(picture, (str, Path)) for picture in pictures)
    )


def paths_of(pictures: Any) -> list[Path]:
    """Returns the image files of a path, a folder (sorted) or a list of paths.

    Raises:
        FedReIDError: if a file does not exist, or a folder contains no image.
    """
    if isinstance(pictures, (str, Path)):
        path = Path(os.path.expanduser(pictures))
        if path.is_dir():
            return pictures_in(path)
        pictures = [path]
    paths = [Path(os.path.expanduser(picture)) for picture in pictures]
    for path in paths:
        if not path.is_file():
            raise FedReIDError(f"{path}: no such picture; give a file, a list of files, or a folder")
    return paths


def as_arrays(pictures: Any) -> list[np.ndarray]:
    """Returns a list of arrays `[H, W, 3]` uint8, one per image.

    Raises:
        FedReIDError: if a shape or type does not fit.
    """
    if isinstance(pictures, Tensor):
        if pictures.dim() != 4 or pictures.shape[1] != 3 or pictures.dtype != torch.uint8:
            raise FedReIDError(
                f"a tensor of pictures must be [N, 3, H, W] uint8 RGB, got {list(pictures.shape)} {pictures.dtype}"
            )
        pictures = pictures.cpu().permute(0, 2, 3, 1).contiguous().numpy()
    if isinstance(pictures, np.ndarray) and pictures.ndim == 3:
        pictures = pictures[None]
    try:
        arrays = list(pictures)
    except TypeError:
        raise FedReIDError(
            f"pictures: got {type(pictures).__name__}; give a path, paths, a tensor, or arrays [H, W, 3] uint8, such "
            "as numpy.asarray(image) of a PIL image"
        ) from None
    for number, array in enumerate(arrays):
        if not isinstance(array, np.ndarray) or array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
            got = f"{list(array.shape)} {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
            raise FedReIDError(f"picture {number} must be [H, W, 3] uint8 RGB, got {got}")
        if not array.size:
            raise FedReIDError(f"picture {number} is empty: {list(array.shape)}")
    return arrays
