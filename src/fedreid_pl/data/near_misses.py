"""Why a dataset of the catalogue was not found: what there is instead, and what to do about it."""

from __future__ import annotations

import os
from pathlib import Path

from fedreid_pl.data.catalogue import KnownDataset, fits, places_in, plain, subfolders
from fedreid_pl.data.layouts import Layout, find_layouts, recognise_layout
from fedreid_pl.data.readers.msmt17 import LISTS

ARCHIVES = (".zip", ".rar", ".7z", ".tar", ".tgz", ".gz", ".bz2", ".xz")
SHOWN = 8  # names of a folder

MARKS: tuple[tuple[str, ...], ...] = (
    ("bounding_box_train", "query", "bounding_box_test"),
    ("train", "test", *LISTS),
    ("mask_train_v2", "mask_test_v2", *LISTS),
    ("meta.json", "split.json"),
    ("single_shot", "multi_shot"),
    ("cam_a", "cam_b"),
    ("probe", "gallery"),
)
"""Names that stand together in a dataset's folder."""


def near_misses(dataset: KnownDataset, root: Path, layout: Layout | None = None) -> list[str]:
    """What under `root` comes near to the dataset, one sentence each; empty if nothing does.

    Folders of the right name and what they lack, datasets under other names or too deep, archives that are not
    unpacked, other datasets that are easily mistaken for this one, and a `root` that is the dataset itself.
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
    """One line: what was looked for, what comes near to it, or else what there is."""
    names = ", ".join((dataset.name, *dataset.spellings))
    text = f"{dataset.name} is not in {root}; looked for a folder {names} (in any case, also one level deeper)"
    hints = near_misses(dataset, root, layout)
    if not hints:
        found = [place.name for place in subfolders(root)] + _files(root)
        listed = ", ".join(found[:SHOWN]) + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")
        hints = [f"there is {listed or 'nothing'}: check data.root, or name the folder itself"]
    return "; ".join([text, *hints])


def _other_name(dataset: KnownDataset, root: Path, folder: Path) -> list[str]:
    for name, meaning in dataset.mistaken.items():
        if name in plain(folder.name):
            return [f"the folder {folder.name} is not it: {meaning}"]
    return [
        f"the folder {place.relative_to(root)} fits but for its name: "
        f"rename {folder.name} to {dataset.name}, or name the folder itself"
        for place in places_in(dataset, folder)[:1]
    ]


def _other_layout(folder: Path, layout: Layout) -> str:
    return f"the folder {folder} is not in the layout {layout.key}: data.layout=auto reads it"


def _lacks(dataset: KnownDataset, folder: Path) -> str:
    """What is wrong with a folder that has the right name."""
    if not os.access(folder, os.R_OK | os.X_OK):
        return f"the folder {folder.name} cannot be read: check its permissions"
    files, inner = _files(folder), subfolders(folder)
    archives = [name for name in files if name.lower().endswith(ARCHIVES)]
    if archives:
        return f"the folder {folder.name} holds the archive {archives[0]}: unpack it there"
    if not files and not inner:
        return f"the folder {folder.name} is empty: unpack the dataset's archive there"
    layout = next((found for place in (folder, *inner) if (found := recognise_layout(place)) is not None), None)
    expected = find_layouts()[dataset.layout].expects
    if layout is not None and dataset.part and layout.key in dataset.layouts:
        others = ", ".join(place.name for place in inner)
        return (
            f"the folder {folder.name} holds {others} without {dataset.part}, which Table 1 counts: "
            f"add it, or name one of the others, such as {folder.name}/{inner[0].name}"
        )
    if layout is not None:
        return f"the folder {folder.name} is laid out as {layout.title}: expected {expected}"
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
        return f"the folder {folder.name} is nested too deep: move what is in {below} up into {folder.name}"
    names = sorted([*files, *(place.name for place in inner)])
    more = ", ..." if len(names) > SHOWN else ""
    return f"the folder {folder.name} holds {', '.join(names[:SHOWN])}{more}: expected {expected}"


def _files(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.name[0] != "." and entry.is_file())
    except OSError:
        return []
