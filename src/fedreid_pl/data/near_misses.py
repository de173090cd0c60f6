"""Hints for a dataset of the catalogue that was not found: similar folders and archives, and what to do."""

from __future__ import annotations

import os
from pathlib import Path

from fedreid_pl.data.catalogue import KnownDataset, fits, places_in, plain, subfolders
from fedreid_pl.data.layouts import Layout, find_layouts, recognise_layout
from fedreid_pl.data.readers.msmt17 import LISTS

ARCHIVES = (".zip", ".rar", ".7z", ".tar", ".tgz", ".gz", ".bz2", ".xz")
SHOWN = 8  # number of names of a folder in a message

MARKS: tuple[tuple[str, ...], ...] = (
    ("bounding_box_train", "query", "bounding_box_test"),
    ("train", "test", *LISTS),
    ("mask_train_v2", "mask_test_v2", *LISTS),
    ("meta.json", "split.json"),
    ("single_shot", "multi_shot"),
    ("cam_a", "cam_b"),
    ("probe", "gallery"),
)
"""Names that occur together in a dataset's folder."""


def near_misses(dataset: KnownDataset, root: Path, layout: Layout | None = None) -> list[str]:
    """Returns one hint for everything under `root` that is similar to the dataset; empty if there is nothing.

    The hints are about folders with the right name and missing content, the dataset under another name or too deep,
    packed archives, other datasets with similar names, and a `root` that is the dataset itself.
    """
    hints = []
    for folder in subfolders(root):
        if dataset.is_spelled(folder.name):
            read = places_in(dataset, folder) if layout else []
            hints.append(
                _other_layout(read[0].relative_to(root), layout) if layout and read else _lacks(dataset, folder)
            )
        elif dataset.word in plain(folder.name):
            hints += _other_name(dataset, root, folder)
        else:
            inside = [place for place in subfolders(folder) if dataset.is_spelled(place.name)]
            hints += [
                f"it may be {place.relative_to(root)}: give the folder above it, data.root={folder}"
                for place in inside
                if places_in(dataset, place)
            ]
    for name in _files(root):
        if name.lower().endswith(ARCHIVES) and dataset.word in plain(name):
            hints.append(f"the archive {name} is not unpacked: unpack it in {root}")
    if dataset.is_spelled(root.name) and fits(dataset, root):
        hints.append(f"data.root is the dataset itself: give the folder above it, data.root={root.parent}")
    return hints


def missing_dataset(dataset: KnownDataset, root: Path, layout: Layout | None = None) -> str:
    """Returns the message about a missing dataset: the accepted names, and hints or else the content of `root`."""
    names = ", ".join((dataset.name, *dataset.spellings))
    text = f"{dataset.name} is not in {root}; looked for a folder {names} (in any case, also one level deeper)"
    hints = near_misses(dataset, root, layout)
    if not hints:
        found = [place.name for place in subfolders(root)] + _files(root)
        listed = ", ".join(found[:SHOWN]) + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")
        hints = [f"there is {listed or 'nothing'}: check data.root, or give the folder itself"]
    return "; ".join([text, *hints])


def _other_name(dataset: KnownDataset, root: Path, folder: Path) -> list[str]:
    for name, meaning in dataset.mistaken.items():
        if name in plain(folder.name):
            return [f"the folder {folder.name} is another dataset: {meaning}"]
    return [
        f"the folder {place.relative_to(root)} fits except for its name: "
        f"rename {folder.name} to {dataset.name}, or give the folder itself"
        for place in places_in(dataset, folder)[:1]
    ]


def _other_layout(folder: Path, layout: Layout) -> str:
    return f"the folder {folder} is not in the layout {layout.key}: data.layout=auto reads it"


def _lacks(dataset: KnownDataset, folder: Path) -> str:
    """Returns what is wrong with a folder that has the right name."""
    if not os.access(folder, os.R_OK | os.X_OK):
        return f"the folder {folder.name} cannot be read: check its permissions"
    files, inner = _files(folder), subfolders(folder)
    archives = [name for name in files if name.lower().endswith(ARCHIVES)]
    if archives:
        return f"the folder {folder.name} contains the archive {archives[0]}: unpack it there"
    if not files and not inner:
        return f"the folder {folder.name} is empty: unpack the dataset's archive there"
    layout = next((found for place in (folder, *inner) if (found := recognise_layout(place)) is not None), None)
    expected = find_layouts()[dataset.layout].expects
    if layout is not None and dataset.part and layout.key in dataset.layouts:
        others = ", ".join(place.name for place in inner)
        return (
            f"the folder {folder.name} contains {others} but not {dataset.part}, the part in Table 1: "
            f"add it, or give one of the others, such as {folder.name}/{inner[0].name}"
        )
    if layout is not None:
        return f"the folder {folder.name} has the layout of {layout.title}: expected {expected}"
    for place in (folder, *inner):
        for marks in MARKS:
            present = [name for name in marks if os.path.exists(place / name)]
            if present and len(present) < len(marks):
                missing = ", ".join(name for name in marks if name not in present)
                where = place.relative_to(folder.parent)
                return f"the folder {where} has {', '.join(present)} but lacks {missing}: unpack the archive again"
    deeper = [place for child in inner for place in places_in(dataset, child)]
    if deeper:
        below = deeper[0].relative_to(folder)
        return f"the folder {folder.name} is nested too deep: move the content of {below} up into {folder.name}"
    names = sorted([*files, *(place.name for place in inner)])
    more = ", ..." if len(names) > SHOWN else ""
    return f"the folder {folder.name} contains {', '.join(names[:SHOWN])}{more}: expected {expected}"


def _files(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.name[0] != "." and entry.is_file())
    except OSError:
        return []
