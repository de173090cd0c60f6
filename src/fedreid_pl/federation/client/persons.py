"""Fits a head to changed persons: known persons keep their rows, new persons start with new rows.

A client recognises a person by the person's pictures. Person numbers are not reliable, because a reader may number
persons in the order of their names. Next to its head, a client therefore saves a table of marks: `[pictures, 2]` int64,
one row for each training picture, with the picture's mark and the row of its person in the head.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedreid_pl.data.samples import SampleTable
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.callback import FederationCallback


def mark_of(path: str) -> int:
    """Returns a number that identifies a picture: 63 bits of the SHA-256 of its path.

    >>> 0 <= mark_of("bounding_box_train/0002_c1s1.jpg") < 2**63
    True
    """
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big") >> 1


def person_marks(table: SampleTable, client: str = "") -> Tensor:
    """Returns the table of marks of training pictures, `[pictures, 2]` int64: mark, and row in the head.

    Args:
        table: training pictures of a client.
        client: name of the client, which is a part of every mark. Equal file names of two clients therefore have
            different marks, and the state of another client is not mistaken for the state of this client.
    """
    lines = [[mark, row] for mark, row in zip(_marks(table, client), table.labels().tolist(), strict=True)]
    return torch.tensor(lines, dtype=torch.int64).reshape(-1, 2)


def known_rows(before: Tensor, now: Tensor) -> list[int | None]:
    """Returns for each row of the new head the person's row in the earlier head, `None` for a new person.

    If two persons were merged or one person was split, the pair with the most common pictures counts.

    Args:
        before: table of marks of the earlier pictures.
        now: table of marks of the current pictures.
    """
    row_of = dict(before.tolist())
    shared = Counter((row, row_of[mark]) for mark, row in now.tolist() if mark in row_of)
    rows: list[int | None] = [None] * (int(now[:, 1].max()) + 1 if len(now) else 0)
    for (row, old), _ in sorted(shared.items(), key=lambda item: (-item[1], item[0])):
        if rows[row] is None and old not in rows:
            rows[row] = old
    return rows


def check_marks(kept: Mapping[str, Any]) -> None:
    """Checks the table of marks in a client's saved state. States of earlier versions have no table and pass.

    Args:
        kept: content of the client's file.

    Raises:
        ValueError: if the table is malformed or does not fit the saved head.
    """
    if "persons" not in kept:
        return
    marks, head = kept["persons"], kept.get("head")
    if not (isinstance(marks, Tensor) and marks.dtype == torch.int64 and marks.dim() == 2 and marks.shape[1] == 2):
        raise ValueError("the saved table of persons is not an int64 tensor of shape [pictures, 2]")
    values = list(head.values()) if isinstance(head, Mapping) else []
    sizes = {len(value) if isinstance(value, Tensor) and value.dim() else 0 for value in values}
    if len(sizes) != 1 or not ((marks[:, 1] >= 0) & (marks[:, 1] < max(sizes))).all():
        raise ValueError("the saved head does not fit the saved table of persons")


def with_persons(
    kept: Mapping[str, Any],
    head: Mapping[str, Tensor],
    rows: Sequence[int | None],
    callbacks: Mapping[str, FederationCallback],
) -> dict[str, Any]:
    """Returns a client's saved state with heads that fit the client's current persons.

    Rows of known persons move to their new places; new persons get the rows of `head`. The entries that callbacks
    declare as `heads` change in the same way. The momentum of heads and of second networks restarts at zero.

    Args:
        kept: content of the client's file.
        head: state dict of a new head for the current persons.
        rows: earlier row of each person, see `known_rows`.
        callbacks: client halves by name.

    Raises:
        FedReIDError: if a callback saved a value for every person that cannot be fitted to other persons.
    """
    states: dict[str, Any] = {}
    for name, state in kept.get("callbacks", {}).items():
        callback = callbacks.get(name)
        fixed = [part for part in (callback.per_person if callback else ()) if part in state]
        if fixed:
            raise FedReIDError(
                f"callbacks.{name}: the client's persons have changed, but the saved value {fixed[0]} of every person "
                "cannot be fitted to other persons; restore the earlier pictures, or take part in a new run"
            )
        heads = callback.heads if callback else ()
        states[name] = {part: _moved(own, head, rows) if part in heads else own for part, own in state.items()}
    moved = {**kept, "head": _moved(kept["head"], head, rows), "callbacks": states}
    if "optimizer" in kept:
        momentum = kept["optimizer"]["momentum"]
        own = {name: value for name, value in momentum.items() if name.startswith("backbone.")}
        moved["optimizer"] = {**kept["optimizer"], "momentum": own}
    return moved


def _marks(table: SampleTable, client: str) -> list[int]:
    """Returns marks that depend on paths inside the dataset's folder, so that the folder can be moved as a whole."""
    if not table.paths or table.root != Path("/"):
        return [mark_of(f"{client}:{path}") for path in table.paths]
    common = os.path.commonpath(table.paths)  # combined datasets have absolute paths
    return [mark_of(f"{client}:{os.path.relpath(path, common)}") for path in table.paths]


def _moved(before: Mapping[str, Tensor], fresh: Mapping[str, Tensor], rows: Sequence[int | None]) -> dict[str, Tensor]:
    places = [place for place, row in enumerate(rows) if row is not None]
    known = [row for row in rows if row is not None]
    moved = {name: value.clone() for name, value in fresh.items()}
    for name, value in moved.items():
        value[places] = before[name][known]
    return moved
