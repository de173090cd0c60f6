"""Decoding of image files, and the search for files that cannot be decoded."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from fedreid_pl.data.colours import NoRange, to_rgb
from fedreid_pl.data.readers.cuhk03_mat import inside_mat, read_mat_image
from fedreid_pl.data.readers.picture_files import HEAD, READ, other_format, picture_format
from fedreid_pl.errors import FedReIDError

VERSION = "2"  # version of the result of `open_rgb`; cached images of another version are not used
BLOCK = 64  # images per task of a thread
MOST_PIXELS = 2**26  # largest number of pixels of an image, about 67 million: 200 MB in RGB

# MOST_PIXELS is stricter than Pillow's limit and leads to an error that names the file.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Damaged EXIF data are ignored, as in image viewers.
warnings.filterwarnings("ignore", message="Corrupt EXIF", category=UserWarning)


def open_rgb(path: str) -> Image.Image:
    """Returns the image of a file in RGB at its original size, as an image viewer shows it (see `to_rgb`).

    The first bytes of the file determine the format. Of several frames or pages the first one is read.

    Raises:
        FedReIDError: if the file is missing or damaged, has a format outside of `READ`, has more than `MOST_PIXELS`
            pixels, or has pixels without a defined range. The message names the file and the reason.
    """
    try:
        return _from_mat(path) if inside_mat(path) else _from_file(path)
    except FedReIDError:
        raise
    except NoRange as error:
        raise UnreadableImage(path, str(error)) from error
    except Exception as error:  # Pillow raises various exceptions for damaged files
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a readable image"
        raise UnreadableImage(path, reason) from error


def _from_file(path: str) -> Image.Image:
    with open(path, "rb", opener=_opened) as stream:
        head = stream.read(HEAD)
        stream.seek(0)
        if (format := picture_format(head)) is None:
            other = other_format(head)
            known = f"{other} format is not read, only {', '.join(READ)}"
            raise UnreadableImage(path, known if other else "not a readable image")
        with Image.open(stream, formats=(format,)) as image:
            _check_size(path, *image.size)
            return to_rgb(image)


def _from_mat(path: str) -> Image.Image:
    pixels = read_mat_image(path)
    _check_size(path, pixels.shape[1], pixels.shape[0])
    return Image.fromarray(pixels)


def _opened(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # do not block if the path is a named pipe without a writer


def _check_size(path: str, width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise UnreadableImage(path, f"{width:,} x {height:,} pixels are more than {MOST_PIXELS:,}")


def decode(path: str, height: int, width: int) -> np.ndarray:
    """Returns an image as `[height, width, 3]` uint8 RGB, resized bicubically; raises the errors of `open_rgb`."""
    picture = open_rgb(path)
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(picture)


class UnreadableImage(FedReIDError):
    """Raised for a file that cannot be decoded as an image."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(
            f"{path}: {reason}; replace or remove the file, or skip unreadable files with data.on_bad_image=skip"
        )
        self.path, self.reason = path, reason


def in_blocks(count: int, work: Callable[[range], list], progress: Callable[[int], None] | None = None) -> list:
    """Splits `range(count)` into blocks, calls `work` on them in threads, and returns all results in order.

    The first exception (in the order of the blocks) is raised, and no further block is started. `progress` is called
    with the number of finished items.
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
        pool.shutdown(cancel_futures=True)  # after Ctrl-C, waiting blocks are cancelled
    return results


def unreadable_files(files: Sequence[str], progress: Callable[[str], None] | None = None) -> list[tuple[str, str]]:
    """Decodes images in threads and returns path and reason of every image that cannot be decoded, in order."""
    return decode_all(files, progress)[0]


def decode_all(
    files: Sequence[str], progress: Callable[[str], None] | None = None
) -> tuple[list[tuple[str, str]], dict[str, bytes]]:
    """Decodes files in threads; returns path and reason of unreadable files, and a pixel hash of the others by path.

    Two files have the same hash exactly if they show the same image, even in different formats.
    """

    def look(rows: range) -> list[tuple[str, str | bytes]]:
        found: list[tuple[str, str | bytes]] = []
        for row in rows:
            try:
                image = open_rgb(files[row])
            except UnreadableImage as error:
                found.append((error.path, error.reason))
            else:
                size = f"{image.width} {image.height}".encode()
                found.append((files[row], hashlib.blake2b(image.tobytes(), digest_size=16, key=size).digest()))
        return found

    said = None if progress is None else lambda done: progress(f"{done:,} of {len(files):,} images")
    found = in_blocks(len(files), look, said)
    bad = [(path, result) for path, result in found if isinstance(result, str)]
    return bad, {path: result for path, result in found if isinstance(result, bytes)}
