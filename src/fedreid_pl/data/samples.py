"""The table of samples, which every dataset reader returns."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fedreid_pl.data.inventory_counts import Inventory

JUNK = -1
"""Identity of a junk image: removed from the gallery before ranking (Market-1501's `-1`)."""

DISTRACTOR = -2
"""Identity of a distractor: stays in the gallery and is never a correct match (Market-1501's `0000`)."""

TRAIN, QUERY, GALLERY = 0, 1, 2
SPLITS = {"train": TRAIN, "query": QUERY, "gallery": GALLERY}


@dataclass(frozen=True, eq=False)
class SampleTable:
    """Images of one dataset, one row each, in an order that does not depend on the file system.

    Args:
        name: the dataset's name, used in every message and table.
        root: the folder to which `paths` are relative.
        paths: relative paths, `/`-separated.
        identities: `[N]` int64, the dataset's own person numbers (>= 0), `JUNK` or `DISTRACTOR`.
        cameras: `[N]` int64, the dataset's own camera numbers.
        splits: `[N]` uint8, `TRAIN`, `QUERY` or `GALLERY`.
        layout: key of the dataset's layout, if known.
        remarks: remarks on the files for the user, one line each.
        inventory: inventory of the files in the dataset's folder, for a table of a whole dataset.
        found: source of person and camera, with one name as an example; empty if the layout describes it.
        has_cameras: whether the dataset has camera numbers. If not, `cameras` are placeholders that make every gallery
            image of a person a match.

    Raises:
        ValueError: if the columns differ in length.
    """

    name: str
    root: Path
    paths: tuple[str, ...]
    identities: np.ndarray
    cameras: np.ndarray
    splits: np.ndarray
    layout: str = ""
    remarks: tuple[str, ...] = ()
    inventory: Inventory | None = None
    found: str = ""
    has_cameras: bool = True

    def __post_init__(self) -> None:
        sizes = {len(self.paths), len(self.identities), len(self.cameras), len(self.splits)}
        if len(sizes) != 1:
            raise ValueError(f"{self.name}: columns of different lengths {sorted(sizes)}")

    def __len__(self) -> int:
        return len(self.paths)

    def split(self, name: str) -> SampleTable:
        """Returns the rows of `"train"`, `"query"` or `"gallery"`."""
        return self.take(np.flatnonzero(self.splits == SPLITS[name]))

    def take(self, rows: np.ndarray | Sequence[int]) -> SampleTable:
        """Returns the given rows, in the given order."""
        rows = np.asarray(rows, dtype=np.int64)
        return SampleTable(
            self.name,
            self.root,
            tuple(self.paths[row] for row in rows),
            self.identities[rows],
            self.cameras[rows],
            self.splits[rows],
            self.layout,
            has_cameras=self.has_cameras,
        )

    def files(self) -> list[str]:
        """Returns the full path of every image, in row order."""
        return [os.path.join(self.root, path) for path in self.paths]

    def labels(self) -> np.ndarray:
        """Returns the label of every row, `[N]` int64 in `0..identities-1`, in the order of person numbers."""
        return np.unique(self.identities, return_inverse=True)[1].astype(np.int64)

    def num_identities(self) -> int:
        """Returns the number of different persons; junk and distractors do not count."""
        return int((np.unique(self.identities) >= 0).sum())


def concatenate(tables: Sequence[SampleTable], name: str) -> SampleTable:
    """Returns all rows of `tables` as one table in which persons of different datasets stay distinct.

    The person numbers of each table are shifted past those of the previous tables; junk and distractors keep their
    codes. Camera numbers are shifted in the same way, and paths become absolute.

    Raises:
        ValueError: if `tables` is empty.
    """
    if not tables:
        raise ValueError("nothing to concatenate")
    paths: list[str] = []
    identities, cameras, splits = [], [], []
    first_identity = first_camera = 0
    for table in tables:
        paths += map(os.path.abspath, table.files())
        identities.append(np.where(table.identities >= 0, table.identities + first_identity, table.identities))
        cameras.append(table.cameras + first_camera)
        splits.append(table.splits)
        first_identity = int(max(identities[-1].max(initial=-1) + 1, first_identity))
        first_camera = int(max(cameras[-1].max(initial=-1) + 1, first_camera))
    return SampleTable(
        name,
        Path("/"),
        tuple(paths),
        np.concatenate(identities),
        np.concatenate(cameras),
        np.concatenate(splits),
        has_cameras=all(table.has_cameras for table in tables),
    )
