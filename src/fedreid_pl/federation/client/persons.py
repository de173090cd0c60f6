"""A head whose persons change: known persons keep their rows, new persons begin with fresh rows.

A client knows a person again by the pictures. Person numbers do not serve for this, as a reader may number persons in
the order of their names. So a client keeps, beside its head, a table of marks: `[pictures, 2]` int64, one line for each
training picture with its mark and the row of its person.
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
    """Returns a number that stands for a picture: 63 bits of the SHA-256 of its path.

    >>> 0 <= mark_of("bounding_box_train/0002_c1s1.jpg") < 2**63
    True
    """
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big") >> 1


def person_marks(table: SampleTable, client: str = "") -> Tensor:
    """Returns the table of marks of training pictures, `[pictures, 2]` int64: mark and row of the head.

    Args:
        table: training pictures of a client.
        client: its name, a part of every mark: equal file names of two clients have different marks, so that the state
            of another client is not taken for this one's.
    """
    lines = [[mark, row] for mark, row in zip(_marks(table, client), table.labels().tolist(), strict=True)]
    return torch.tensor(lines, dtype=torch.int64).reshape(-1, 2)


def known_rows(before: Tensor, now: Tensor) -> list[int | None]:
    """Returns for each row of the new head the row that the person had before, `None` for a new person.

    Where two persons have become one, or the reverse, the pair with the most pictures in common counts.

    Args:
        before: table of marks of the earlier pictures.
        now: table of marks of the pictures as they are now.
    """
    row_of = dict(before.tolist())
    shared = Counter((row, row_of[mark]) for mark, row in now.tolist() if mark in row_of)
    rows: list[int | None] = [None] * (int(now[:, 1].max()) + 1 if len(now) else 0)
    for (row, old), _ in sorted(shared.items(), key=lambda item: (-item[1], item[0])):
        if rows[row] is None and old not in rows:
            rows[row] = old
    return rows


def check_marks(kept: Mapping[str, Any]) -> None:
    """Refuses what a client kept if its table of marks is none, or is not of its head; earlier versions kept no table.

    Raises:
        ValueError: if that is so.
    """
    if "persons" not in kept:
        return
    marks, head = kept["persons"], kept.get("head")
    if not (isinstance(marks, Tensor) and marks.dtype == torch.int64 and marks.dim() == 2 and marks.shape[1] == 2):
        raise ValueError("what it kept of its persons is no table of marks")
    values = list(head.values()) if isinstance(head, Mapping) else []
    sizes = {len(value) if isinstance(value, Tensor) and value.dim() else 0 for value in values}
    if len(sizes) != 1 or not ((marks[:, 1] >= 0) & (marks[:, 1] < max(sizes))).all():
        raise ValueError("its head does not fit its table of marks")


def with_persons(
    kept: Mapping[str, Any],
    head: Mapping[str, Tensor],
    rows: Sequence[int | None],
    callbacks: Mapping[str, FederationCallback],
) -> dict[str, Any]:
    """Returns what a client kept, with heads that fit its persons as they are now.

    Rows of known persons are moved to their new places, those of new persons are the rows of `head`. The same is done
    to what callbacks declare as `heads`. Momentum of heads and of second networks begins anew.

    Args:
        kept: the content of the client's file.
        head: a fresh head for the persons as they are now.
        rows: see `known_rows`.
        callbacks: client halves by name.

    Raises:
        FedReIDError: if a callback kept something for every person that cannot follow.
    """
    states: dict[str, Any] = {}
    for name, state in kept.get("callbacks", {}).items():
        callback = callbacks.get(name)
        fixed = [part for part in (callback.per_person if callback else ()) if part in state]
        if fixed:
            raise FedReIDError(
                f"callbacks.{name}: keeps {fixed[0]} for every person and cannot go on with other persons; put the "
                "earlier pictures back, or take part in a new run"
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
    """Marks of pictures by their paths in the dataset's folder, which may be moved as a whole."""
    if not table.paths or table.root != Path("/"):
        return [mark_of(f"{client}:{path}") for path in table.paths]
    common = os.path.commonpath(table.paths)  # datasets that were put together have absolute paths
    return [mark_of(f"{client}:{os.path.relpath(path, common)}") for path in table.paths]


def _moved(before: Mapping[str, Tensor], fresh: Mapping[str, Tensor], rows: Sequence[int | None]) -> dict[str, Tensor]:
    places = [place for place, row in enumerate(rows) if row is not None]
    known = [row for row in rows if row is not None]
    moved = {name: value.clone() for name, value in fresh.items()}
    for name, value in moved.items():
        value[places] = before[name][known]
    return moved
