"""The digest of a table: independent of its folder, and different after any change of a row."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from fedreid_pl.data.digest import digest
from fedreid_pl.data.samples import SampleTable

TABLE = SampleTable(
    "set",
    Path("/data/set"),
    ("a.jpg", "b.jpg", "c.jpg", "d.jpg"),
    np.array([3, 3, -1, 7]),
    np.array([1, 2, 2, 1]),
    np.array([0, 0, 2, 1], dtype=np.uint8),
    "market1501",
)


def test_counts_and_layout() -> None:
    entry = digest(TABLE)
    assert {key: entry[key] for key in ("layout", "train", "query", "gallery")} == {
        "layout": "market1501",
        "train": 2,
        "query": 1,
        "gallery": 1,
    }
    assert len(entry["sha256"]) == 64 and digest(TABLE.split("query"))["train"] == 0


def test_name_folder_and_type_of_the_columns_do_not_matter() -> None:
    same = replace(TABLE, name="other", root=Path("/elsewhere"), identities=TABLE.identities.astype(np.int32))
    assert digest(same) == digest(TABLE)


def test_any_changed_row_changes_the_digest() -> None:
    tables = [
        TABLE,
        TABLE.take([0, 1, 2]),
        TABLE.take([1, 0, 2, 3]),
        replace(TABLE, paths=("a.jpg", "b.jpg", "c.jpg", "e.jpg")),
        replace(TABLE, paths=("a.jpgb", ".jpg", "c.jpg", "d.jpg")),
        replace(TABLE, identities=np.array([3, 4, -1, 7])),
        replace(TABLE, cameras=np.array([1, 1, 2, 1])),
        replace(TABLE, splits=np.array([0, 1, 2, 1], dtype=np.uint8)),
        replace(TABLE, identities=TABLE.cameras, cameras=TABLE.identities),
        replace(TABLE, paths=("a.jpg", "b.jpg", "c.jpg", "\udcff.jpg")),  # a name that is not UTF-8
    ]
    assert len({digest(table)["sha256"] for table in tables}) == len(tables)
