"""One image file as pixels, and which files of many cannot be that."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from fedreid_pl.data.readers.cuhk03_mat import inside_mat, read_mat_image
from fedreid_pl.errors import FedReIDError

BLOCK = 64  # images that a thread takes at a time


def open_rgb(path: str) -> Image.Image:
    """The image in RGB at its own size.

    Raises:
        FedReIDError: naming the file, if it is missing or cannot be decoded.
    """
    try:
        if inside_mat(path):
            return Image.fromarray(read_mat_image(path))
        with Image.open(path) as image:
            return image.convert("RGB")
    except FedReIDError:
        raise
    except Exception as error:  # a damaged file makes Pillow raise almost anything
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a readable image"
        raise UnreadableImage(path, reason) from error


def decode(path: str, height: int, width: int) -> np.ndarray:
    """One image as `[height, width, 3]` uint8 RGB, resized bicubically; raises as `open_rgb`."""
    picture = open_rgb(path)
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(picture)


class UnreadableImage(FedReIDError):
    """A file that is no image."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}; replace or remove the file, or leave such out, data.on_bad_image=skip")
        self.path, self.reason = path, reason


def in_blocks(count: int, work: Callable[[range], list], progress: Callable[[int], None] | None = None) -> list:
    """`work` on consecutive ranges that make up `range(count)`, in threads; its results in the order of the ranges.

    The first exception, in this order, ends it; no range is begun after that. `progress` gets the number done.
    """
    ranges = [range(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK)]
    results: list = []
    pool = ThreadPoolExecutor(min(os.cpu_count() or 1, 16))
    try:
        for rows, found in zip(ranges, pool.map(work, ranges), strict=True):
            results += found
            if progress is not None:
                progress(rows.stop)
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C nobody waits for the rest
    return results


def unreadable_files(files: Sequence[str], progress: Callable[[str], None] | None = None) -> list[tuple[str, str]]:
    """Path and reason of every image that cannot be decoded, in the order given; decodes in threads."""

    def faults(rows: range) -> list[tuple[str, str]]:
        found = []
        for row in rows:
            try:
                open_rgb(files[row])
            except UnreadableImage as error:
                found.append((error.path, error.reason))
        return found

    said = None if progress is None else lambda done: progress(f"{done:,} of {len(files):,} images")
    return in_blocks(len(files), faults, said)
