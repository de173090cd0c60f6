"""Images at the network's size, as uint8, decoded once where memory allows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fedreid_pl.data.samples import SampleTable
from fedreid_pl.errors import FedReIDError

MEMORY_SHARE = 0.25  # of the free memory that `cache=auto` may fill


def decode(path: str, height: int, width: int) -> np.ndarray:
    """One image as `[height, width, 3]` uint8 RGB, resized bicubically.

    Raises:
        FedReIDError: naming the file, if it is missing or cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            picture = image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a readable image"
        raise FedReIDError(f"{path}: {reason}; replace or remove the file") from error
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(picture)


class ImageSource:
    """The images of a table in row order.

    Args:
        files: paths of the images.
        height, width: size that they are resized to, in pixels.
        memory: keep all of them decoded after the first use (`N * height * width * 3` bytes).
    """

    def __init__(self, files: Sequence[str], height: int, width: int, memory: bool) -> None:
        self.files = list(files)
        self.height, self.width = height, width
        self.memory = memory
        self._pixels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.files)

    def load(self) -> None:
        """Decodes everything now, in threads, when the source is one that keeps images in memory.

        Raises:
            FedReIDError: for the first file, in row order, that cannot be read.
        """
        if not self.memory or self._pixels is not None:
            return
        pixels = np.empty((len(self.files), self.height, self.width, 3), dtype=np.uint8)

        def fill(rows: range) -> None:
            for row in rows:
                pixels[row] = decode(self.files[row], self.height, self.width)

        blocks = [range(start, min(start + 256, len(self.files))) for start in range(0, len(self.files), 256)]
        with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
            for _ in pool.map(fill, blocks):
                pass
        self._pixels = torch.from_numpy(pixels)

    def read(self, rows: Sequence[int]) -> Tensor:
        """Images `[B, 3, height, width]` uint8 in channels-last memory order.

        Raises:
            FedReIDError: for a file that cannot be read.
        """
        self.load()
        if self._pixels is not None:
            batch = self._pixels[torch.as_tensor(rows, dtype=torch.int64)]
        else:
            batch = torch.from_numpy(np.stack([decode(self.files[row], self.height, self.width) for row in rows]))
        return batch.permute(0, 3, 1, 2)


class ImagePool:
    """Image sources shared by everybody who reads the same table, so that nothing is decoded twice.

    Args:
        height, width: size in pixels.
        cache: `"memory"`, `"none"`, or `"auto"`: in memory while all tables asked for so far stay below
            a quarter of the memory that was free at the start.
        processes: how many processes of this machine keep a pool.
    """

    def __init__(self, height: int, width: int, cache: str = "auto", processes: int = 1) -> None:
        self.height, self.width, self.cache = height, width, cache
        self._sources: dict[tuple[Path, tuple[str, ...]], ImageSource] = {}
        self._budget = _free_memory() * MEMORY_SHARE / processes

    def source(self, table: SampleTable) -> ImageSource:
        """The source for a table's rows; the same object for the same files."""
        key = (table.root, table.paths)
        if key not in self._sources:
            size = len(table) * self.height * self.width * 3
            memory = self.cache == "memory" or (self.cache == "auto" and size <= self._budget)
            self._budget -= size if memory else 0
            self._sources[key] = ImageSource(table.files(), self.height, self.width, memory)
        return self._sources[key]

    def load(self) -> int:
        """Decodes every source that is kept in memory; returns how many images that are."""
        kept = [source for source in self._sources.values() if source.memory]
        for source in kept:
            source.load()
        return sum(len(source) for source in kept)


def _free_memory() -> float:
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        return 4e9
