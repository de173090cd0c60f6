"""The datasets of the paper: names of their folders, their layouts and their numbers of images."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fedreid_pl.data.layouts import Layout, recognise_layout


class Counts(NamedTuple):
    """One row of Table 1. All distractors of a gallery count as one identity; junk images are included."""

    cameras: int
    train_identities: int
    train_images: int
    query_identities: int
    query_images: int
    gallery_identities: int
    gallery_images: int

    @property
    def images(self) -> int:
        """Images of the three splits together."""
        return self.train_images + self.query_images + self.gallery_images


@dataclass(frozen=True)
class KnownDataset:
    """One dataset of the catalogue.

    Args:
        name: name in `data.datasets`; also the client's name.
        word: part of the names of its folders and archives, in the form of `plain`.
        layout: key of the layout in which its authors distribute it.
        spellings: usual names of its folder besides `name`; case and punctuation do not matter.
        table1: counts of the paper, with misprints corrected.
        note: explanation of these counts for the user.
        also: keys of other layouts in which its authors distribute it.
        part: name of the subfolder to read if there are several; empty accepts every subfolder that fits.
        drawn: fields of `table1` that depend on a random draw which the authors did not publish.
        slack: largest difference of the total number of images because of this draw.
        explained: other usual counts, and their explanation.
        mistaken: similar names of other datasets, in the form of `plain`, and an explanation of each.
    """

    name: str
    word: str
    layout: str
    spellings: tuple[str, ...] = ()
    table1: Counts | None = None
    note: str = ""
    also: tuple[str, ...] = ()
    part: str = ""
    drawn: tuple[str, ...] = ()
    slack: int = 0
    explained: Mapping[tuple[str, int], str] = field(default_factory=dict)
    mistaken: Mapping[str, str] = field(default_factory=dict)

    @property
    def layouts(self) -> tuple[str, ...]:
        """Keys of the layouts that its folder may have: the authors' layouts, and those of conversion scripts."""
        return (self.layout, *self.also, *CONVERTED)

    def is_spelled(self, name: str) -> bool:
        """Returns whether a folder name is a spelling of this dataset."""
        return plain(name) in map(plain, (self.name, *self.spellings))


CONVERTED = ("market1501", "fedreid_processed", "dgd", "csv_table", "id_folders")
"""Layouts to which scripts convert any dataset."""

_DATASETS = (
    KnownDataset(
        "MSMT17",
        word="msmt17",
        layout="msmt17",
        spellings=("MSMT17_V1", "MSMT17_V2", "MSMT"),
        table1=Counts(15, 1_041, 32_621, 3_060, 11_659, 3_060, 82_161),
        explained={("train_images", 30_248): "list_train.txt without list_val.txt"},
    ),
    KnownDataset(
        "DukeMTMC-reID",
        word="duke",
        layout="market1501",
        spellings=("DukeMTMC", "Duke"),
        table1=Counts(8, 702, 16_522, 702, 2_228, 1_110, 17_661),
        note="the gallery has 17,661 images, Table 1 prints 17,611",
    ),
    KnownDataset(
        "Market-1501",
        word="market",
        layout="market1501",
        spellings=("Market-1501-v15.09.15", "Market"),
        table1=Counts(6, 751, 12_936, 750, 3_368, 751, 19_732),
        note="Table 1 counts the 3,819 junk images, and the distractors as one identity",
        explained={("gallery_images", 15_913): "the gallery without its 3,819 junk images (-1_...)"},
    ),
    KnownDataset(
        "CUHK03-NP",
        word="cuhk03",
        layout="market1501",
        spellings=("CUHK03-NP-detected", "CUHK03-detected", "CUHK03"),
        table1=Counts(2, 767, 7_365, 700, 1_400, 700, 5_332),
        note="Table 1 counts the detected boxes",
        also=("cuhk03_mat",),
        part="detected",
        explained={
            ("train_images", 7_368): "the labeled boxes; Table 1 has the detected ones",
            ("gallery_images", 5_328): "the labeled boxes; Table 1 has the detected ones",
        },
    ),
    KnownDataset(
        "PRID2011",
        word="prid",
        layout="prid2011",
        spellings=("PRID",),
        table1=Counts(2, 285, 3_744, 100, 100, 649, 649),
        drawn=("train_images",),
        slack=150,
        note="the authors' half of the 200 shared persons is not published; another has some more or fewer frames",
        mistaken={"prid450s": "PRID 450S is another dataset"},
    ),
    KnownDataset(
        "CUHK01",
        word="cuhk01",
        layout="cuhk01",
        spellings=("campus",),
        table1=Counts(2, 485, 1_940, 486, 972, 486, 972),
    ),
    KnownDataset(
        "VIPeR",
        word="viper",
        layout="viper",
        spellings=("VIPeR.v1.0",),
        table1=Counts(2, 316, 632, 316, 316, 316, 316),
    ),
    KnownDataset(
        "3DPeS",
        word="3dpes",
        layout="3dpes",
        spellings=("3DPeS_ReId_Snap",),
        table1=Counts(2, 93, 450, 86, 246, 100, 316),
        drawn=("train_images", "query_identities", "query_images", "gallery_images"),
        note="its two cameras are a convention, and the authors' draw of them is not published",
    ),
    KnownDataset(
        "i-LIDS",
        word="ilids",
        layout="ilids",
        spellings=("i-LIDS_Pedestrian", "QMUL-i-LIDS"),
        table1=Counts(2, 59, 248, 60, 98, 60, 130),
        drawn=("train_images", "query_images", "gallery_images"),
        note="its two cameras are a convention; Table 1 prints iLIDS-VID but counts QMUL i-LIDS",
        mistaken={
            "ilidsvid": "iLIDS-VID is another dataset (300 persons): the paper prints its name, but counts QMUL i-LIDS"
        },
    ),
    KnownDataset("CUHK02", word="cuhk02", layout="cuhk02"),
    KnownDataset("GRID", word="grid", layout="grid", spellings=("underground_reid", "QMUL-GRID")),
    KnownDataset("CAVIAR4REID", word="caviar", layout="caviar", spellings=("CAVIARa", "CAVIAR")),
)

CATALOGUE: Mapping[str, KnownDataset] = {dataset.name: dataset for dataset in _DATASETS}
"""Datasets by name: the nine of Table 1 in its order, the public set, and the two unseen test sets of the paper."""


def plain(name: str) -> str:
    """Returns a name in lower case, without punctuation.

    >>> plain("Market-1501-v15.09.15"), plain("i-LIDS")
    ('market1501v150915', 'ilids')
    """
    return re.sub(r"[^a-z0-9]", "", name.lower())


def identify(name: str) -> KnownDataset | None:
    """Returns the dataset of which a folder name is a spelling, or `None`.

    >>> identify("MSMT17_V2").name, identify("cuhk03-np/detected").name, identify("iLIDS-VID")
    ('MSMT17', 'CUHK03-NP', None)
    """
    return next((dataset for dataset in CATALOGUE.values() if dataset.is_spelled(name)), None)


def find_folders(dataset: KnownDataset, root: Path, layout: Layout | None = None) -> list[Path]:
    """Returns the folders of a dataset below `root`: several if the user must choose, none if it is missing.

    `root/NAME` has priority over other spellings if its layout is recognised. If a folder has the right name but no
    known layout, the dataset may be one level deeper.

    Args:
        dataset: the dataset to find.
        root: the folder of the datasets.
        layout: the only accepted layout; `None` accepts every layout of the dataset.
    """
    exact = root / dataset.name
    if _recognised(exact, layout) is not None:
        return [exact]
    found: dict[Path, Path] = {}  # by the target of links
    for folder in subfolders(root):
        if dataset.is_spelled(folder.name):
            for place in places_in(dataset, folder, layout):
                found.setdefault(place.resolve(), place)
    return list(found.values())


def places_in(dataset: KnownDataset, folder: Path, layout: Layout | None = None) -> list[Path]:
    """Returns `[folder]` if it has a layout of the dataset, otherwise its subfolders with such a layout."""
    if fits(dataset, folder, layout):
        return [folder]
    inner = subfolders(folder)
    if not dataset.part:
        return [place for place in inner if fits(dataset, place, layout)]
    named = [place for place in inner if plain(place.name) == dataset.part or dataset.is_spelled(place.name)]
    deeper = [place / dataset.part for place in named]
    return [place for place in (*named, *deeper) if fits(dataset, place, layout)]


def fits(dataset: KnownDataset, folder: Path, layout: Layout | None = None) -> bool:
    """Returns whether `folder` has the given layout or, if `layout` is `None`, a layout of the dataset."""
    found = _recognised(folder, layout)
    return found is not None and (layout is not None or found in dataset.layouts)


def subfolders(folder: Path) -> list[Path]:
    """Returns the visible subfolders of `folder` in sorted order; an empty list if it cannot be listed."""
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith((".", "__")))
    except OSError:
        return []
    return [folder / name for name in names if os.path.isdir(folder / name)]


def _recognised(folder: Path, layout: Layout | None) -> str | None:
    found = recognise_layout(folder) if layout is None else layout if layout.recognise(folder) else None
    return found.key if found else None
