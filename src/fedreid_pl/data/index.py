"""Indexes of large datasets in the cache folder, so that the folders are listed only once.

An index contains the rows of the table, and the state (time, inode, size) of every folder of the dataset and of every
text file that the reader opened. It is valid as long as none of these states has changed. The state of a folder changes
if a name in it changes.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import time
import zipfile
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from fedreid_pl.data import inventory, names, readers
from fedreid_pl.data.cache_folder import made_whole
from fedreid_pl.data.inventory import read_with_inventory
from fedreid_pl.data.inventory_counts import Inventory
from fedreid_pl.data.readers.layout import Layout, ReadOptions
from fedreid_pl.data.samples import SampleTable

WORTH_IT = 10_000  # rows from which an index is saved; reading a smaller table is as fast as reading its index
SETTLED = 2.0  # seconds; a file that changed more recently may change again without a new time stamp


def read_indexed(layout: Layout, folder: Path, name: str, options: ReadOptions, cache: Path) -> SampleTable:
    """Returns the table of a dataset, from the index in `cache` if it is valid, otherwise from `layout.read`.

    If the index cannot be read or written, the dataset is read without it.

    Raises:
        FedReIDError: under the conditions of `layout.read`.
    """
    place = cache / "index" / f"{_key(layout, folder, options)}.npz"
    if (table := _load(place, folder, name)) is not None:
        return table
    started = time.time()
    table, looked = read_with_inventory(layout, folder, name, options)
    if len(table) >= WORTH_IT:
        with suppress(OSError):
            _save(place, table, sorted(looked.seen), started)
    return table


def _key(layout: Layout, folder: Path, options: ReadOptions) -> str:
    values = json.dumps([_program(), layout.key, os.path.abspath(folder), asdict(options)], sort_keys=True)
    return hashlib.sha256(values.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@functools.cache
def _program() -> str:
    """Returns a fingerprint of the source of the readers: an index is invalid after a change of the readers."""
    content = hashlib.sha256()
    files = [file for folder in readers.__path__ for file in sorted(Path(folder).glob("*.py"))]
    for file in (*files, Path(names.__file__), Path(inventory.__file__)):
        content.update(file.read_bytes())
    return content.hexdigest()


def _states(paths: list[str]) -> np.ndarray:
    """Returns time of the last change, inode and size of each path, `[N, 3]` int64.

    Raises:
        OSError: if a path does not exist any more.
    """
    states = map(os.stat, paths)
    return np.array([(s.st_mtime_ns, s.st_ino & (2**63 - 1), s.st_size) for s in states], dtype=np.int64).reshape(-1, 3)


def _save(place: Path, table: SampleTable, seen: list[str], started: float) -> None:
    states = _states(seen)
    if states[:, 0].max(initial=0) > (started - SETTLED) * 1e9:
        return
    with made_whole(place) as temporary, open(temporary, "wb") as file:
        np.savez(
            file,
            paths=_packed(table.paths),
            identities=table.identities,
            cameras=table.cameras,
            splits=table.splits,
            remarks=_packed(table.remarks),
            files=np.frombuffer(json.dumps(asdict(table.inventory or Inventory())).encode(), dtype=np.uint8),
            found=_packed((table.found,)),
            has_cameras=np.array(table.has_cameras),
            seen=_packed(tuple(seen)),
            states=states,
        )


def _load(place: Path, folder: Path, name: str) -> SampleTable | None:
    try:
        with np.load(place, allow_pickle=False) as content:
            if not np.array_equal(_states(list(_unpacked(content["seen"]))), content["states"]):
                return None
            columns = (content[column] for column in ("identities", "cameras", "splits"))
            table = SampleTable(name, folder, _unpacked(content["paths"]), *columns)
            files = json.loads(content["files"].tobytes())
            held = Inventory(**files | {"unread": tuple(map(tuple, files["unread"]))})
            (found,), has_cameras = _unpacked(content["found"]), bool(content["has_cameras"])
            remarks = _unpacked(content["remarks"])
            return replace(table, remarks=remarks, found=found, has_cameras=has_cameras, inventory=held)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None  # the index is missing or damaged, or one of its folders or files does not exist any more


def _packed(texts: tuple[str, ...]) -> np.ndarray:
    """Returns texts without null bytes as one array of bytes."""
    return np.frombuffer("".join(f"{text}\0" for text in texts).encode("utf-8", "surrogateescape"), dtype=np.uint8)


def _unpacked(content: np.ndarray) -> tuple[str, ...]:
    return tuple(content.tobytes().decode("utf-8", "surrogateescape").split("\0")[:-1])
