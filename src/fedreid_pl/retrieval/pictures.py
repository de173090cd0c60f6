"""What a user gives as pictures: files, folders, arrays, tensors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedreid_pl.errors import FedReIDError

Pictures = str | Path | Sequence[str | Path] | np.ndarray | Sequence[np.ndarray] | Tensor

AHEAD = 3  # batches that are decoded while the network computes

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm")


def pictures_in(folder: Path) -> list[Path]:
    """Every picture below a folder, sorted by path.

    Raises:
        FedReIDError: if there is none.
    """
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise FedReIDError(f"{folder}: holds no picture")
    return found


def read_ahead(read: Callable[[range], Tensor], ranges: Sequence[range]) -> Iterator[Tensor]:
    """Yields `read` of every range, in order, and reads a few of them ahead in threads."""
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


def persons_of(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns person and camera of every picture, by the folders in its name; the camera is empty if unknown.

    >>> persons_of(["ann/1.jpg", "ann/door/2.jpg", "3.jpg"])
    (['ann', 'ann', '3'], ['', 'door', ''])
    """
    parts = [name.split("/") for name in names]
    persons = [part[0] if len(part) > 1 else Path(part[0]).stem for part in parts]
    return persons, [part[1] if len(part) > 2 else "" for part in parts]


def are_paths(pictures: Any) -> bool:
    """Returns whether this is a list of paths."""
    return (
        isinstance(pictures, Sequence)
        and len(pictures) > 0
        and all(isinstance(picture, (str, Path)) for picture in pictures)
    )


def paths_of(pictures: Any) -> list[Path]:
    """Returns the files that are meant; those of a folder in sorted order.

    Raises:
        FedReIDError: if one does not exist, or a folder holds no picture.
    """
    if isinstance(pictures, (str, Path)):
        path = Path(pictures).expanduser()
        if path.is_dir():
            return pictures_in(path)
        pictures = [path]
    paths = [Path(picture).expanduser() for picture in pictures]
    for path in paths:
        if not path.is_file():
            raise FedReIDError(f"{path}: no such picture; give a file, a list of files, or a folder")
    return paths


def as_arrays(pictures: Any) -> list[np.ndarray]:
    """Returns single arrays `[H, W, 3]` uint8.

    Raises:
        FedReIDError: for another shape or type.
    """
    if isinstance(pictures, Tensor):
        if pictures.dim() != 4 or pictures.shape[1] != 3 or pictures.dtype != torch.uint8:
            raise FedReIDError(
                f"a tensor of pictures must be [N, 3, H, W] uint8 RGB, got {list(pictures.shape)} {pictures.dtype}"
            )
        pictures = pictures.cpu().permute(0, 2, 3, 1).contiguous().numpy()
    if isinstance(pictures, np.ndarray) and pictures.ndim == 3:
        pictures = pictures[None]
    arrays = list(pictures)
    for number, array in enumerate(arrays):
        if not isinstance(array, np.ndarray) or array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
            got = f"{list(array.shape)} {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
            raise FedReIDError(f"picture {number} must be [H, W, 3] uint8 RGB, got {got}")
        if not array.size:
            raise FedReIDError(f"picture {number} is empty: {list(array.shape)}")
    return arrays
