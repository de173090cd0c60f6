"""Images at the network's input size as uint8: decoded at every access, or once into memory or a cache on disk."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedreid_pl.data.decoding import decode, in_blocks
from fedreid_pl.data.image_cache import ImageCache, Progress
from fedreid_pl.data.samples import SampleTable

MEMORY_SHARE = 0.25  # share of the free memory that `cache=auto` may use
MOST_READERS = 16


class ImageSource:
    """The images of a table in row order.

    Args:
        files: paths of the images.
        height, width: size in pixels to which the images are resized.
        memory: keep all decoded images in memory after the first use (`N * height * width * 3` bytes).
    """

    def __init__(self, files: Sequence[str], height: int, width: int, memory: bool) -> None:
        self.files = list(files)
        self.height, self.width = height, width
        self.memory = memory
        self._pixels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.files)

    @property
    def decodes(self) -> bool:
        """Whether every read of a batch opens and decodes files."""
        return not self.memory

    def load(self) -> None:
        """Decodes all images in threads if the source keeps images in memory; otherwise does nothing.

        Raises:
            FedReIDError: if a file cannot be read; the error names the first one in row order.
        """
        if not self.memory or self._pixels is not None:
            return
        pixels = np.empty((len(self.files), self.height, self.width, 3), dtype=np.uint8)

        def fill(rows: range) -> list:
            for row in rows:
                pixels[row] = decode(self.files[row], self.height, self.width)
            return []

        in_blocks(len(self.files), fill)
        self._pixels = torch.from_numpy(pixels)

    def read(self, rows: Sequence[int] | Tensor) -> Tensor:
        """Returns images `[B, 3, height, width]` uint8 in channels-last memory order.

        Raises:
            FedReIDError: if a file cannot be read.
        """
        self.load()
        return self._pick(rows).permute(0, 3, 1, 2)

    def _pick(self, rows: Sequence[int] | Tensor) -> Tensor:
        """Returns images `[B, height, width, 3]` uint8."""
        if self._pixels is not None:
            return _rows(self._pixels, torch.as_tensor(rows, dtype=torch.int64))
        return torch.from_numpy(np.stack([decode(self.files[row], self.height, self.width) for row in rows]))


class CachedSource(ImageSource):
    """Images of a table that are decoded in one or several caches on disk.

    Args:
        files: paths of the images.
        caches: images of each cache, uint8 `[N, height, width, 3]`.
        which: `[len(files)]` int64, the cache of every image.
        where: `[len(files)]` int64, the row of every image in its cache.
    """

    def __init__(self, files: Sequence[str], caches: Sequence[Tensor], which: Tensor, where: Tensor) -> None:
        super().__init__(files, caches[0].shape[1], caches[0].shape[2], memory=False)
        self._caches, self._which, self._where = caches, which, where

    @property
    def decodes(self) -> bool:
        """Always `False`: reading a batch copies decoded images."""
        return False

    def _pick(self, rows: Sequence[int] | Tensor) -> Tensor:
        index = torch.as_tensor(rows, dtype=torch.int64)
        which, where = self._which[index], self._where[index]
        present = which.unique().tolist()
        if len(present) == 1:
            return _rows(self._caches[present[0]], where)
        batch = torch.empty(len(index), self.height, self.width, 3, dtype=torch.uint8)
        for cache in present:
            places = (which == cache).nonzero().squeeze(1)
            batch[places] = _rows(self._caches[cache], where[places])
        return batch


class ImagePool:
    """Image sources that all readers of a table share, so that no image is decoded twice.

    Args:
        height, width: size in pixels.
        cache: `"memory"`, `"disk"`, `"none"`, or `"auto"`. `"auto"` keeps tables in memory as long as they need at most
            a quarter of the memory that was free at the start.
        processes: number of processes on this machine that have a pool.
        workers: threads that read batches in advance, for all clients together. They are not used for images in memory.
            `None`: number of processors divided by `processes`.
    """

    def __init__(
        self, height: int, width: int, cache: str = "auto", processes: int = 1, workers: int | None = None
    ) -> None:
        self.height, self.width, self.cache = height, width, cache
        self.workers = min((os.cpu_count() or 1) // processes or 1, MOST_READERS) if workers is None else workers
        self._sources: dict[tuple[Path, tuple[str, ...]], ImageSource] = {}
        self._budget = _free_memory() * MEMORY_SHARE / processes
        self._caches: list[Tensor] = []
        self._places: dict[str, tuple[int, int]] = {}  # cache and row of a file
        self._readers: ThreadPoolExecutor | None = None

    def prepare(
        self,
        datasets: Iterable[SampleTable],
        folder: Path,
        progress: Progress | None = None,
        say: Progress | None = None,
    ) -> int:
        """Decodes datasets into the cache `folder`, if `cache="disk"`; returns the number of images in all caches.

        Datasets that are already in the cache are not decoded again.

        Raises:
            FedReIDError: under the conditions of `ImageCache.images`.
        """
        if self.cache != "disk":
            return 0
        cache = ImageCache(folder, self.height, self.width)
        for table in datasets:
            number = len(self._caches)
            self._caches.append(cache.images(table, progress, say))
            self._places |= {os.path.abspath(file): (number, row) for row, file in enumerate(table.files())}
        return sum(len(images) for images in self._caches)

    def source(self, table: SampleTable) -> ImageSource:
        """Returns the image source of a table; the same object for the same files."""
        key = (table.root, table.paths)
        if key not in self._sources:
            self._sources[key] = self._cached(table.files()) or self._decoded(table)
        return self._sources[key]

    def readers(self, source: ImageSource) -> Executor | None:
        """Returns the threads that read batches of a source in advance, or `None` if the images are in memory."""
        if not self.workers or source.memory:
            return None
        if self._readers is None:
            self._readers = ThreadPoolExecutor(self.workers, thread_name_prefix="images")
        return self._readers

    def load(self) -> int:
        """Decodes every source that keeps images in memory; returns the number of these images."""
        kept = [source for source in self._sources.values() if source.memory]
        for source in kept:
            source.load()
        return sum(len(source) for source in kept)

    def undecoded(self) -> tuple[int, int]:
        """Returns the number of images that are decoded at every access, and the bytes that they need in memory."""
        count = sum(len(source) for source in self._sources.values() if source.decodes)
        return count, count * self.height * self.width * 3

    def _decoded(self, table: SampleTable) -> ImageSource:
        size = len(table) * self.height * self.width * 3
        memory = self.cache == "memory" or (self.cache == "auto" and size <= self._budget)
        self._budget -= size if memory else 0
        return ImageSource(table.files(), self.height, self.width, memory)

    def _cached(self, files: Sequence[str]) -> ImageSource | None:
        """Returns the source of files that are all in a cache, or `None` if a file is not."""
        places = [self._places.get(os.path.abspath(file)) for file in files] if self._places else [None]
        if None in places or not places:
            return None
        which, where = torch.tensor(places, dtype=torch.int64).unbind(1)
        return CachedSource(files, self._caches, which, where)


def _rows(images: Tensor, rows: Tensor) -> Tensor:
    """Returns `images[rows]`; copying every image as one block is many times faster than indexing."""
    return images.flatten(1).index_select(0, rows).view(-1, *images.shape[1:])


def _free_memory() -> float:
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        return 4e9
