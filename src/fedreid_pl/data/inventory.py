"""The inventory of the files in a dataset's folder: read, skipped on purpose, or unread."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fedreid_pl.data.inventory_counts import KINDS, Inventory
from fedreid_pl.data.readers.cuhk03_mat import container
from fedreid_pl.data.readers.layout import Layout, ReadOptions
from fedreid_pl.data.readers.listing import Looked, list_folder, witnesses
from fedreid_pl.data.readers.picture_files import is_picture, is_system_folder, kind_of
from fedreid_pl.data.samples import SampleTable
from fedreid_pl.errors import FedReIDError


def read_with_inventory(layout: Layout, folder: Path, name: str, options: ReadOptions) -> tuple[SampleTable, Looked]:
    """Reads a dataset; returns its table with `table.inventory`, and all folders and files that the reader opened.

    Raises:
        FedReIDError: under the conditions of `layout.read`.
    """
    with witnesses() as looked:
        table = layout.read(folder, name, options)
        return replace(table, inventory=_take(layout, folder, options, table, looked)), looked


def _take(layout: Layout, root: Path, options: ReadOptions, table: SampleTable, looked: Looked) -> Inventory:
    taken = _by_folder(root, table)
    lists = set(map(os.path.normpath, looked.seen))
    counts: Counter[str] = Counter()
    unread: list[tuple[str, str]] = []
    unused = tuple(os.path.join(root, place) + os.sep for place in layout.unused)
    for folder, files, special in _folders(os.path.normpath(root), looked):
        mine = taken.get(folder, set())
        others = [name for name in files if name not in mine]
        counts["read"] += len(files) - len(others)
        for name in others:
            path = f"{folder}/{name}"
            if special:
                kind, reason = ("system", "") if special == "system" else ("other", special)
            elif path in lists:
                kind, reason = "lists", ""
            else:
                kind, reason = kind_of(folder, name)
            left_out = folder in looked.offered or options.train_only
            if path.startswith(unused) or (kind == "picture" and left_out and is_picture(folder, name)):
                counts["unused"] += 1
            elif kind in ("picture", "other"):
                outside = f"{reason}, which the layout {layout.key} does not read"
                unread.append((os.path.relpath(path, root), outside if kind == "picture" else reason))
            else:
                counts[kind] += 1
    skipped = {kind: counts[kind] for kind in KINDS if counts[kind]}
    return Inventory(counts["read"], counts["lists"], counts["unused"], skipped, tuple(sorted(unread)))


def _by_folder(root: Path, table: SampleTable) -> dict[str, set[str]]:
    """Returns the names of the files in the table by folder."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in table.paths:
        folder, _, name = container(path).rpartition("/")
        found[folder].add(name)
    merged: dict[str, set[str]] = defaultdict(set)
    for folder, names in found.items():
        merged[os.path.normpath(os.path.join(root, folder))] |= names
    return merged


def _folders(root: str, looked: Looked) -> Iterator[tuple[str, list[str], str]]:
    """Yields every folder below `root` with its files, and `system` or the reason why the files cannot be read.

    A link to a folder is followed only if the reader has listed that folder.
    """
    waiting = [(root, "")]
    while waiting:
        folder, special = waiting.pop()
        above, name = os.path.split(folder)
        try:
            files, folders = list_folder(Path(folder), "")
        except FedReIDError as error:
            yield above, [name], str(error).removeprefix(f"{folder}: ")
            continue
        yield folder, files, special
        for name in folders:
            place = f"{folder}/{name}"
            if place not in looked.entries and os.path.islink(place):
                yield folder, [name], "a link to a folder that is not part of the layout"
            else:
                waiting.append((place, "system" if special or is_system_folder(name) else ""))
