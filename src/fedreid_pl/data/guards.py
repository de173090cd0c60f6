"""What a federation may not contain: an image in two places, test persons in the public set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedreid_pl.config import DataConfig
from fedreid_pl.data.samples import SampleTable
from fedreid_pl.errors import FedReIDError


def check_no_shared_images(tables: Sequence[SampleTable]) -> None:
    """Two datasets may not hold the same file, by a link or because one folder lies within another.

    Raises:
        FedReIDError: naming both and one file.
    """
    owner: dict[str, str] = {}
    for table in tables:
        root = str(table.root.resolve())
        for path in table.paths:
            file = f"{root}/{path}"
            if owner.setdefault(file, table.name) != table.name:
                raise FedReIDError(
                    f"{file}: is an image of {owner[file]} and of {table.name}; two clients may not share images"
                )


def guarded_public(config: DataConfig, public: SampleTable, tables: Sequence[SampleTable]) -> SampleTable:
    """The public set without, or refused because of, persons whom a client is tested on.

    Known is one such pair: P1 of CUHK02 shows the persons of CUHK01. `data.public_overlap` says what to do.

    Raises:
        FedReIDError: with `refuse`; or with `drop`, if the images in question cannot be told.
    """
    tested = [table for table in tables if _is(table, "cuhk01")]
    if not _is(public, "cuhk02") or not tested or config.public_overlap == "keep":
        return public
    overlap = np.array([path.startswith("P1/") or "/P1/" in path for path in public.paths])
    reason = f"data.public={public.name}: its P1 shows the persons of {tested[0].name}, which are tested on"
    if config.public_overlap == "refuse":
        raise FedReIDError(
            f"{reason}; data.public_overlap=drop leaves its {int(overlap.sum()):,} images out, keep keeps them"
        )
    if not overlap.any():
        raise FedReIDError(
            f"{reason}, and cannot be told from the other pairs in {public.root}; give CUHK02 as it is distributed "
            "(P1 to P5), or data.public_overlap=keep"
        )
    return public.take(np.flatnonzero(~overlap))


def _is(table: SampleTable, dataset: str) -> bool:
    return table.layout == dataset or table.name.lower() == dataset
