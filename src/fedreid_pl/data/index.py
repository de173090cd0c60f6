"""What was read of a large dataset, kept beside the program's caches so that no folder is listed a second time.

An index holds the rows of the table and the state (time, inode, size) of every folder below the dataset's and of every
text file that the reader looked at. It is used as long as all of them are as they were: a folder changes when a name in
it does.
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

WORTH_IT = 10_000  # rows; a smaller table is read as fast as its index
SETTLED = 2.0  # seconds: what changed more recently may change again without a later time


def read_indexed(layout: Layout, folder: Path, name: str, options: ReadOptions, cache: Path) -> SampleTable:
    """`layout.read`, from the index in `cache` if there is one and nothing has changed since it was made.

    An index that cannot be written or read is done without.

    Raises:
        FedReIDError: as `layout.read`.
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
    """A fingerprint of the readers: an index is of no use to readers that would read otherwise."""
    content = hashlib.sha256()
    files = [file for folder in readers.__path__ for file in sorted(Path(folder).glob("*.py"))]
    for file in (*files, Path(names.__file__), Path(inventory.__file__)):
        content.update(file.read_bytes())
    return content.hexdigest()


def _states(paths: list[str]) -> np.ndarray:
    """`[N, 3]` int64: time of the last change, inode and size of each path.

    Raises:
        OSError: if one is not there any more.
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
        return None  # there is none, it is damaged, or something it was made of is gone


def _packed(texts: tuple[str, ...]) -> np.ndarray:
    """Texts without null bytes as one array of bytes."""
    return np.frombuffer("".join(f"{text}\0" for text in texts).encode("utf-8", "surrogateescape"), dtype=np.uint8)


def _unpacked(content: np.ndarray) -> tuple[str, ...]:
    return tuple(content.tobytes().decode("utf-8", "surrogateescape").split("\0")[:-1])
