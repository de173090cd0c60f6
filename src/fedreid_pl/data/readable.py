"""Removal of unreadable images from a dataset, for `data.on_bad_image=skip`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import PIL

from fedreid_pl.data.cache_folder import made_whole, signature
from fedreid_pl.data.decoding import VERSION, unreadable_files
from fedreid_pl.data.readers.cuhk03_mat import container
from fedreid_pl.data.samples import SampleTable


class BadImage(NamedTuple):
    """An unreadable file that is left out, and the reason."""

    path: str
    reason: str


def without_unreadable(
    table: SampleTable, cache: Path, progress: Callable[[str], None] | None = None
) -> tuple[SampleTable, list[BadImage]]:
    """Returns the rows whose images can be decoded, and the unreadable files.

    Every image is decoded once. The result is saved in `cache` and is valid until a file changes.
    """
    different = list(dict.fromkeys(table.files()))
    place = _place(different, cache)
    bad = _known(place)
    if bad is None:
        say = None if progress is None else lambda text: progress(f"{table.name}: {text}")
        bad = [BadImage(*fault) for fault in unreadable_files(different, say)]
        _keep(place, bad)
    return (without_files(table, [path for path, _ in bad]) if bad else table), bad


def without_files(table: SampleTable, paths: Iterable[str]) -> SampleTable:
    """Returns the table without the rows of the given files."""
    lost = set(paths)
    kept = table.take([row for row, file in enumerate(table.files()) if file not in lost])
    return replace(kept, remarks=table.remarks, inventory=table.inventory)


def _place(files: list[str], cache: Path) -> Path | None:
    try:
        state = signature(VERSION, PIL.__version__, *files, files=dict.fromkeys(map(container, files)))
    except OSError:
        return None  # decoding reports the missing file
    return cache / "readable" / f"{state}.json"


def _known(place: Path | None) -> list[BadImage] | None:
    if place is not None:
        with suppress(OSError, ValueError, TypeError):
            return [BadImage(str(path), str(reason)) for path, reason in json.loads(place.read_text())]
    return None


def _keep(place: Path | None, bad: list[BadImage]) -> None:
    if place is not None:
        with suppress(OSError), made_whole(place) as temporary:
            temporary.write_text(json.dumps(bad))
