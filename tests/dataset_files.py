"""Small copies of datasets with the authors' file names. The files are empty, because readers open no image."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from fedreid_pl.data.layouts import ReadOptions, find_layouts
from fedreid_pl.data.samples import SPLITS, SampleTable
from fedreid_pl.errors import FedReIDError

SPLIT_NAMES = {number: name for name, number in SPLITS.items()}


def touch(root: Path, *paths: str) -> Path:
    """Creates empty files at these paths below `root`."""
    for folder in {os.path.dirname(path) for path in paths}:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for path in paths:
        (root / path).touch()
    return root


def read(layout: str, root: Path, **options) -> SampleTable:
    return find_layouts()[layout].read(root, "name", ReadOptions(**options))


def rows_of(table: SampleTable) -> list[tuple[str, int, int, str]]:
    """Returns (path, identity, camera, split) of every image, in the table's order."""
    splits = [SPLIT_NAMES[split] for split in table.splits.tolist()]
    return list(zip(table.paths, table.identities.tolist(), table.cameras.tolist(), splits, strict=True))


def persons_of(table: SampleTable, split: str) -> set[int]:
    return set(table.split(split).identities.tolist())


def counts_of(table: SampleTable) -> list[int]:
    """Returns the persons and images of train, query and gallery, as in the columns of the paper's Table 1."""
    return [number for split in SPLITS for number in (table.split(split).num_identities(), len(table.split(split)))]


def message_of(layout: str, root: Path, **options) -> str:
    """Reads a folder that must fail and returns the error line."""
    with pytest.raises(FedReIDError) as caught:
        read(layout, root, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


class Shuffled:
    """A replacement of `os.scandir` that returns its entries in another order."""

    def __init__(self, entries, seed: int) -> None:
        self.entries = entries
        self.seed = seed

    def __enter__(self):
        entries = sorted(self.entries.__enter__(), key=lambda entry: entry.name)
        return iter(random.Random(self.seed).sample(entries, len(entries)))

    def __exit__(self, *error):
        return self.entries.__exit__(*error)


def shuffle_listings(monkeypatch, seed: int) -> None:
    """Makes the listing order of folders depend on `seed`."""
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: Shuffled(scandir(folder), seed))
