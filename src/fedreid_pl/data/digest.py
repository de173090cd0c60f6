"""A digest of the table of a dataset: it shows whether two runs have read the same data."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from fedreid_pl.data.samples import SPLITS, SampleTable


def digest(table: SampleTable) -> dict[str, Any]:
    """Returns layout, rows by split, the SHA-256 of the rows (path, identity, camera, split), and the file inventory.

    Paths are relative to the dataset's folder, so the digest does not change if the folder is moved. No image is
    opened.

    >>> from pathlib import Path
    >>> one = np.array([1])
    >>> table = SampleTable("viper", Path("/data"), ("1.png",), one, one, np.array([0], dtype=np.uint8), "viper")
    >>> {name: value for name, value in digest(table).items() if name != "sha256"}
    {'layout': 'viper', 'train': 1, 'query': 0, 'gallery': 0}
    """
    content = hashlib.sha256("\0".join((*table.paths, "")).encode("utf-8", "surrogateescape"))
    for column in (table.identities, table.cameras, table.splits):
        content.update(np.ascontiguousarray(column, dtype="<i8").tobytes())
    counts = {name: int((table.splits == number).sum()) for name, number in SPLITS.items()}
    files = {"files": table.inventory.as_dict()} if table.inventory is not None else {}
    return {"layout": table.layout, **counts, "sha256": content.hexdigest(), **files}
