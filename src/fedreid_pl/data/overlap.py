"""Overlaps: images, or person numbers, that are in two places of a federation which should share none."""

from __future__ import annotations

import functools
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from fedreid_pl.config import DataConfig
from fedreid_pl.data.cache_folder import chosen_folder
from fedreid_pl.data.file_digests import SIZE, file_digests
from fedreid_pl.data.overlap_found import Overlap
from fedreid_pl.data.readers.cuhk03_mat import inside_mat
from fedreid_pl.data.samples import GALLERY, QUERY, SPLITS, TRAIN, SampleTable
from fedreid_pl.errors import FedReIDError

if TYPE_CHECKING:
    from fedreid_pl.data.federated import FederatedData

SHOWN = 3  # number of examples per overlap
NAMES = {number: name for name, number in SPLITS.items()}


def byte_keys(
    config: DataConfig, tables: Iterable[SampleTable], progress: Callable[[str], None] | None = None
) -> dict[str, bytes]:
    """Returns the SHA-256 of every file by its path; hashes are cached by path, size and time of the file.

    Args:
        config: the `data` section, with the folder of the cache.
        tables: one table per dataset, the public set included.
        progress: called with a short text from time to time.
    """
    keys: dict[str, bytes] = {}
    cache = chosen_folder(config.cache_dir)
    for table in tables:
        files = [file for file in dict.fromkeys(table.files()) if not inside_mat(file)]
        note = None if progress is None else functools.partial(_note_progress, progress, table.name)
        content = file_digests(files, cache, note).tobytes()
        keys |= {file: content[SIZE * row : SIZE * (row + 1)] for row, file in enumerate(files)}
    return keys


def find_overlaps(data: FederatedData, keys: Mapping[str, bytes], what: str = "bytes") -> list[Overlap]:
    """Returns the overlaps between the clients and test sets of a federation.

    The function compares person numbers in training and test set of a dataset. It compares images in training and test
    set, in query and gallery of different cameras, in two datasets or clients, and in public set and test set.

    Args:
        data: the federation.
        keys: hash of every file's content, by path. Files without a hash, or with an empty or zero hash, are ignored.
        what: `bytes` or `pixels`, the content that is hashed.
    """
    tables = [table for table in data.datasets if data.public is None or table.name != data.public.name]
    found = _shared_pictures(tables, data.public, keys, what, frozenset(data.unseen))
    trains = [replace(client.train, name=name) for name, client in data.clients.items()]
    if len(trains) > len(tables) - len(data.unseen):  # a dataset is split over several clients
        found += _shared_pictures(trains, None, keys, what)
    return [*(_shared_persons(tables) if what == "bytes" else ()), *found]


def _note_progress(progress: Callable[[str], None], name: str, text: str) -> None:
    progress(f"{name}: {text}")


def check_overlaps(config: DataConfig, found: Iterable[Overlap]) -> list[str]:
    """Returns one line per overlap, or raises an error if `data.overlap` does not allow it.

    Raises:
        FedReIDError: with `data.overlap=refuse` for any overlap; with `auto` for images that are in training and test
            set of one dataset, or in an unseen dataset and in another place.
    """
    found = list(found)
    refused = [item for item in found if config.overlap == "refuse" or (config.overlap == "auto" and item.serious)]
    if refused:
        more = f" (and {len(refused) - 1} more, see data check)" if len(refused) > 1 else ""
        raise FedReIDError(
            f"data.overlap={config.overlap}: {refused[0]}{more}; remove the images from one of the two places, or "
            "set data.overlap=warn to train with them"
        )
    return list(map(str, found))


def _shared_pictures(
    tables: Sequence[SampleTable],
    public: SampleTable | None,
    keys: Mapping[str, bytes],
    what: str,
    unseen: frozenset[str] = frozenset(),
) -> list[Overlap]:
    every = [*tables, *([public] if public is not None else [])]
    columns = [[keys.get(file, b"") for file in table.files()] for table in every]
    counts = Counter(itertools.chain(*columns))
    spread: dict[bytes, list[tuple[int, int]]] = {key: [] for key, count in counts.items() if count > 1 and any(key)}
    for number, column in enumerate(columns if spread else ()):
        for row, key in enumerate(column):
            if key in spread:
                spread[key].append((number, row))
    found: dict[tuple[str, str], _Pairs] = {}
    for places in spread.values():
        _note(found, every, public is not None, places, unseen)
    return [pairs.finding(where, what) for where, pairs in sorted(found.items())]


@dataclass
class _Pairs:
    of: int
    serious: bool
    rows: set[int]
    examples: list[str]

    def finding(self, where: tuple[str, str], what: str) -> Overlap:
        return Overlap(what, where, len(self.rows), self.of, tuple(self.examples), self.serious)


def _note(
    found: dict[tuple[str, str], _Pairs],
    tables: Sequence[SampleTable],
    has_public: bool,
    places: list[tuple[int, int]],
    unseen: frozenset[str],
) -> None:
    """Adds the overlaps of one image, given all its rows."""
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, row in places:
        groups[number, int(tables[number].splits[row])].append(row)
    public = len(tables) - 1 if has_public else None
    for (one, split), rows in groups.items():
        for (two, other), others in groups.items():
            if not _matters(one, split, two, other, public):
                continue
            mine, theirs = tables[one], tables[two]
            if one == two and (split, other) == (QUERY, GALLERY):
                cameras = set(theirs.cameras[others].tolist())
                rows = [row for row in rows if cameras - {int(mine.cameras[row])}]
                if not rows:
                    continue
            first = f"{mine.name} {NAMES[split]}"
            second = f"{theirs.name} {NAMES[other]}" if two != public else f"the public set {theirs.name}"
            serious = (one == two and other == TRAIN) or (one != two and bool({mine.name, theirs.name} & unseen))
            pairs = found.setdefault((first, second), _Pairs(int((mine.splits == split).sum()), serious, set(), []))
            pairs.rows |= set(rows)
            if len(pairs.examples) < SHOWN:
                pairs.examples.append(f"{mine.paths[rows[0]]} = {theirs.paths[others[0]]}")


def _matters(one: int, split: int, two: int, other: int, public: int | None) -> bool:
    """Returns whether two places should share no image; every pair of places is reported in one order only."""
    if one == public:
        return False
    if two == public:
        return split != TRAIN
    if one == two:
        return (split != TRAIN and other == TRAIN) or (split, other) == (QUERY, GALLERY)
    return (split == TRAIN) < (other == TRAIN) or ((split == TRAIN) == (other == TRAIN) and one < two)


def _shared_persons(tables: Sequence[SampleTable]) -> Iterable[Overlap]:
    """Yields an overlap for every dataset with the same person numbers in training and test set."""
    for table in tables:
        train = np.unique(table.identities[(table.splits == TRAIN) & (table.identities >= 0)])
        test = np.unique(table.identities[(table.splits != TRAIN) & (table.identities >= 0)])
        both = np.intersect1d(train, test)
        if len(both):
            where = (f"{table.name} query and gallery", f"{table.name} train")
            examples = tuple(map(str, both[:SHOWN].tolist()))
            yield Overlap("persons", where, len(both), len(test), examples)
