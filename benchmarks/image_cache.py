"""Compares training batches from the disk cache with PIL decoding and torchvision transforms of single images.

    python benchmarks/image_cache.py [--repeats 7] [--images 1024] [--processes 1]

Images like MSMT17's (JPEG, about 100 x 250 pixels, smoothed noise that compresses like photographs) become batches of
32 at 256 x 128 with the paper's augmentation (pad 10, random crop, flip, normalise):

* cache: read from the cache on disk, augmented as a batch, by `ReIDDataModule`'s own loader;
* images: opened and resized by PIL, then torchvision's transforms one image at a time, by torch's DataLoader.

With `--processes 1` both run in this process with one thread; with N, the DataLoader has N worker processes and our
loader N threads. The passes alternate; the figure is the median of the pairs' ratios.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from figures import Report
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from fedreid_pl.config import DataConfig
from fedreid_pl.data.augmentation import MEAN, STD, TrainAugmentation
from fedreid_pl.data.datamodule import ReIDDataModule
from fedreid_pl.data.federated import ClientData
from fedreid_pl.data.images import ImagePool
from fedreid_pl.data.samples import TRAIN, SampleTable

HEIGHT, WIDTH, BATCH = 256, 128, 32


class PilImages(Dataset):
    """Transforms one image at a time, like most ReID code."""

    def __init__(self, table: SampleTable) -> None:
        self.files, self.labels = table.files(), table.labels()
        self.transform = v2.Compose(
            [
                v2.Resize((HEIGHT, WIDTH), interpolation=v2.InterpolationMode.BICUBIC),
                v2.Pad(10),
                v2.RandomCrop((HEIGHT, WIDTH)),
                v2.RandomHorizontalFlip(),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.files[row]) as image:
            return self.transform(image.convert("RGB")), int(self.labels[row])


def make_images(root: Path, count: int) -> SampleTable:
    """Writes JPEG files of different sizes, of two persons so that the table is valid."""
    draws = np.random.default_rng(0)
    paths = tuple(f"{number:05d}.jpg" for number in range(count))
    for path in paths:
        width, height = int(draws.integers(80, 130)), int(draws.integers(200, 300))
        coarse = Image.fromarray(draws.integers(0, 256, (height // 6, width // 6, 3), dtype=np.uint8))
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(root / path, quality=90)
    numbers = np.arange(count)
    return SampleTable("made", root, paths, numbers % 2, numbers % 4, np.full(count, TRAIN, np.uint8))


def drain(batches: Iterable) -> float:
    """Returns the seconds until the last batch is loaded."""
    start = time.perf_counter()
    for batch in batches:
        del batch
    return time.perf_counter() - start


def measure(count: int, repeats: int, processes: int) -> tuple[list[float], list[float]]:
    """Returns the seconds of every pass over the images: from the cache, and image by image."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        table = make_images(root, count)
        workers = processes if processes > 1 else 0
        config = DataConfig(height=HEIGHT, width=WIDTH, cache="disk", workers=workers)
        pool = ImagePool(HEIGHT, WIDTH, "disk", workers=workers)
        pool.prepare([table], root / "cache")
        datamodule = ReIDDataModule(ClientData("made", table, ()), {}, pool, config, BATCH)
        images = DataLoader(PilImages(table), BATCH, shuffle=True, num_workers=workers)
        cached, decoded = [], []
        for number in range(repeats + 1):
            datamodule.begin_turn(number)
            augment = TrainAugmentation(config.pad, config.flip, config.erasing, config.jitter, number)
            cached.append(drain((augment(batch), labels) for batch, labels, *_ in datamodule.train_dataloader()))
            decoded.append(drain(images))
    return cached[1:], decoded[1:]  # the first pass warms both up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", type=Path, help="JSON file for the figures; they are always printed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cached, decoded = measure(options.images, options.repeats, options.processes)
    report = Report("images from the cache on disk")
    for name, seconds in (("cache on disk", cached), ("PIL and torchvision", decoded)):
        report.add(f"training batches, {name}", [options.images / value for value in seconds], unit="img/s")
    ratios = [slow / fast for fast, slow in zip(cached, decoded, strict=True)]
    report.add(f"PIL and torchvision / cache on disk, {options.processes} process", ratios, "at least 3")
    report.finish(options.json)


if __name__ == "__main__":
    main()
