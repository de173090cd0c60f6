"""Messages about folders of `data.root` that are not datasets, with the most similar layouts."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedreid_pl.data.catalogue import subfolders
from fedreid_pl.data.layouts import Layout, find_layouts, recognise_layout
from fedreid_pl.data.readers.crops import holds_pictures
from fedreid_pl.data.readers.msmt17 import LISTS
from fedreid_pl.data.readers.original import FLAT, FOLDERS
from fedreid_pl.data.readers.picture_files import is_picture, is_system_folder
from fedreid_pl.errors import counted, printable

CLOSEST = 2  # number of layouts in a message
SHOWN = 5  # number of names of a folder in a message

MARKS: Mapping[str, tuple[str, ...]] = {
    "market1501": ("bounding_box_train", "query", "bounding_box_test"),
    "msmt17": ("train", "test", *LISTS),
    "fedreid_processed": ("pytorch/train_all", "pytorch/query", "pytorch/gallery"),
    "dgd": ("meta.json", "split.json"),
    "cuhk03_mat": ("cuhk-03.mat",),
    "csv_table": ("samples.csv",),
    "id_folders": ("train", "query", "gallery"),
    **{key: alternatives[0] for key, alternatives in FOLDERS.items() if key not in FLAT},
    **{key: (folder,) for key, folder in FLAT.items()},
}
"""Names that occur together in a folder, by layout."""


def unrecognised(root: Path, layout: Layout | None, used: set[Path]) -> list[str]:
    """Returns one line for every folder in `root` that is not a dataset, and one for images in `root` itself.

    Args:
        root: the folder of the datasets.
        layout: the only accepted layout; `None` accepts any.
        used: folders of datasets and of the public set, with links resolved.
    """
    lines = []
    for folder in _folders(root):
        if folder.resolve() not in used:
            lines.append(f"{folder}: {why_not(folder, layout)}; the folder is not read")
    try:
        loose = [entry.name for entry in os.scandir(root) if not entry.is_dir() and is_picture(str(root), entry.name)]
    except OSError:
        return lines
    if loose:
        what = (
            f"{counted(len(loose), 'picture')} directly in this folder"
            if len(loose) > 1
            else "a picture directly in this folder"
        )
        lines.append(f"{root}: {what} {'are' if len(loose) > 1 else 'is'} not read, such as {printable(min(loose))}")
    return lines


def why_not(folder: Path, layout: Layout | None = None) -> str:
    """Returns why a folder is not a dataset, and what to do: its actual layout, or the most similar layouts."""
    if not os.access(folder, os.R_OK | os.X_OK):
        return "the folder cannot be read; check its permissions"
    found = recognise_layout(folder)
    if found is not None:
        wanted = f", not {layout.key}" if layout is not None else ""
        return f"has the layout {found.key}{wanted}; data.layout=auto reads it"
    for inner in subfolders(folder):
        if recognise_layout(inner) is not None:
            return f"the dataset is one folder deeper; name it, data.datasets=[{folder.name}/{inner.name}]"
    close = closest_layouts(folder)
    if close:
        return f"has no layout that data.layout=auto recognises; closest: {'; '.join(close)}"
    names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    held = ", ".join(map(printable, names[:SHOWN])) + (
        f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    )
    crops = f"; for a folder of person crops, set data=crops data.root={folder}" if holds_pictures(folder, 3) else ""
    none = "has no layout that data.layout=auto recognises, and no layout is similar"
    return f"{none}; it contains {held or 'no files'}{crops}"


def closest_layouts(folder: Path) -> list[str]:
    """Returns the layouts that share most names with `folder`, with present and missing names, best first."""
    present = {name.lower(): name for name in _names(folder)}
    ranked = []
    for key, marks in MARKS.items():
        found = {mark: near for mark in marks if (near := _near(mark, present, marks)) is not None}
        if found:
            ranked.append((len(found) / len(marks), len(found), key, found))
    ranked.sort(key=lambda item: (-item[0], -item[1], item[2]))
    return [_described(key, found) for _, _, key, found in ranked[:CLOSEST]]


def _described(key: str, found: Mapping[str, str]) -> str:
    has = ", ".join(mark if near == mark else f"{printable(near)} for {mark}" for mark, near in found.items())
    lacks = ", ".join(mark for mark in MARKS[key] if mark not in found)
    if lacks:
        return f"{key} (has {has}; lacks {lacks})"
    expects = find_layouts()[key].expects
    return f"{key} (has {has}, but does not contain {expects})"


def _near(mark: str, present: Mapping[str, str], marks: Sequence[str]) -> str | None:
    """Returns a present name that equals a mark except for case or a typing error, and is not another mark."""
    if mark.lower() in present:
        return present[mark.lower()]
    others = [name for name in present if name not in map(str.lower, marks)]
    close = difflib.get_close_matches(mark.lower(), others, n=1, cutoff=0.85)
    return present[close[0]] if close else None


def _names(folder: Path) -> list[str]:
    """Returns the names in a folder and, after a `/`, in some subfolders; empty if it cannot be listed."""
    try:
        names = [name for name in os.listdir(folder) if not name.startswith(".")]
    except OSError:
        return []
    inner = [place for place in subfolders(folder) if place.name.lower() in ("pytorch", "single_shot", "p1")]
    return [*names, *(f"{place.name}/{below.name}" for place in inner for below in subfolders(place))]


def _folders(root: Path) -> list[Path]:
    return [folder for folder in subfolders(root) if not is_system_folder(folder.name)]
