"""Checks that no image is in two clients, and that no test person is in the public set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedreid_pl.config import DataConfig
from fedreid_pl.data.samples import SampleTable
from fedreid_pl.errors import FedReIDError, counted


def check_no_shared_images(tables: Sequence[SampleTable]) -> None:
    """Raises an error if two datasets contain the same file, through a link or because one folder is in another.

    Raises:
        FedReIDError: with both datasets and one file.
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
    """Returns the public set after the check that it shows no test persons of a client.

    One overlap is known: P1 of CUHK02 shows the persons of CUHK01. `data.public_overlap` chooses what to do: `drop`
    removes these images, `keep` keeps them, `refuse` raises an error.

    Raises:
        FedReIDError: with `refuse`, or with `drop` if the images of P1 cannot be identified.
    """
    tested = [table for table in tables if _is(table, "cuhk01")]
    if not _is(public, "cuhk02") or not tested or config.public_overlap == "keep":
        return public
    overlap = np.array([path.startswith("P1/") or "/P1/" in path for path in public.paths])
    reason = f"data.public={public.name}: its part P1 shows the test persons of {tested[0].name}"
    if config.public_overlap == "refuse":
        raise FedReIDError(
            f"{reason}; data.public_overlap=drop removes its {counted(int(overlap.sum()), 'image')}, "
            "data.public_overlap=keep keeps them"
        )
    if not overlap.any():
        raise FedReIDError(
            f"{reason}, and the images of P1 cannot be identified in {public.root}; use CUHK02 as its authors "
            "distribute it (folders P1 to P5), or set data.public_overlap=keep"
        )
    return public.take(np.flatnonzero(~overlap))


def _is(table: SampleTable, dataset: str) -> bool:
    return table.layout == dataset or table.name.lower() == dataset
