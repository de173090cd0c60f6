"""Check whether images were drawn by this program: their files must match the manifest of MiniReID."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from fedreid_pl.config import Config
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.data.minireid.schedule import FOLDERS
from fedreid_pl.data.minireid.writer import MANIFEST, digest_of
from fedreid_pl.data.samples import SampleTable


def are_synthetic(tables: Iterable[SampleTable]) -> bool:
    """Returns whether every image of every table was drawn by this program."""
    tables = list(tables)
    return bool(tables) and all(is_synthetic(table) for table in tables)


def is_synthetic(table: SampleTable) -> bool:
    """Returns whether the files of a table match the manifest beside its folder, and the table has no other files.

    The folder may have been renamed. The setting `data.synthetic` of the configuration is ignored.
    """
    root = table.root.resolve()
    known = _manifest_digests(root.parent / MANIFEST)
    if not known or any(path.partition("/")[0] not in FOLDERS or path.count("/") != 1 for path in table.paths):
        return False
    return _digest_of_files(root, _state(root)) in known


def with_found(config: Config, data: FederatedData) -> Config:
    """Returns the configuration with `data.synthetic` set to the result of the check."""
    return replace(config, data=replace(config.data, synthetic=data.synthetic))


def _manifest_digests(file: Path) -> set[str]:
    try:
        if file.stat().st_size > 10_000_000:
            return set()
        content = json.loads(file.read_text(encoding="utf-8"))
        return (
            {str(entry["sha256"]) for entry in content["domains"].values()} if content["synthetic"] is True else set()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return set()


def _state(root: Path) -> tuple[tuple[str, int, int], ...]:
    """Returns name, size and time of every file, to detect changes since the files were hashed."""
    found = []
    for folder in FOLDERS:
        try:
            with os.scandir(root / folder) as entries:
                stats = [(entry.name, entry.stat()) for entry in entries]
        except OSError:
            continue
        found += [(f"{folder}/{name}", state.st_size, state.st_mtime_ns) for name, state in stats]
    return tuple(sorted(found))


@functools.lru_cache(maxsize=64)
def _digest_of_files(root: Path, state: tuple[tuple[str, int, int], ...]) -> str:
    try:
        return digest_of((path, hashlib.sha256((root / path).read_bytes()).hexdigest()) for path, _, _ in state)
    except OSError:
        return ""
