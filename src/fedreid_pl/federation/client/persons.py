"""A head whose persons change: known persons keep their rows, new ones begin with fresh rows.

A client knows a person again by the pictures: each row of the head is kept with marks of some training pictures of its
person. The numbers of persons do not serve for this, as a reader may number persons in the order of their names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fedreid_pl.data.samples import SampleTable
from fedreid_pl.errors import FedReIDError

MARKS = 4
"""Pictures by which a person is known again, at most."""
NONE = 0
"""Stands for a picture in the marks of a person who has fewer."""


def mark_of(path: str) -> int:
    """Returns a number that stands for a picture: 63 bits of the SHA-256 of the last three parts of its path.

    The parts before them may change: a folder of datasets may be moved.

    >>> mark_of("/data/market/bounding_box_train/0002_c1s1.jpg") == mark_of("market/bounding_box_train/0002_c1s1.jpg")
    True
    """
    tail = "/".join(path.split("/")[-3:])
    return int.from_bytes(hashlib.sha256(tail.encode()).digest()[:8], "big") >> 1 or 1


def person_marks(table: SampleTable) -> Tensor:
    """Returns marks of every training person, `[persons, MARKS]` int64, in the order of the head's rows."""
    found: list[list[int]] = [[] for _ in range(table.num_identities())]
    for path, label in zip(table.paths, table.labels().tolist(), strict=True):
        found[label].append(mark_of(path))
    rows = [sorted(marks)[:MARKS] for marks in found]
    return torch.tensor([[*row, *[NONE] * (MARKS - len(row))] for row in rows], dtype=torch.int64)


def known_rows(marks: Tensor, table: SampleTable) -> list[int | None]:
    """Returns by training person the row that the person had before, `None` for a new one.

    Args:
        marks: `[rows, MARKS]` int64, what `person_marks` returned for the earlier pictures.
        table: the training pictures as they are now.
    """
    row_of = {mark: row for row, own in enumerate(marks.tolist()) for mark in own if mark != NONE}
    votes: list[dict[int, int]] = [{} for _ in range(table.num_identities())]
    for path, label in zip(table.paths, table.labels().tolist(), strict=True):
        if (row := row_of.get(mark_of(path))) is not None:
            votes[label][row] = votes[label].get(row, 0) + 1
    taken: set[int] = set()
    rows: list[int | None] = []
    for counts in votes:
        free = {row: count for row, count in counts.items() if row not in taken}
        best = max(free, key=lambda row: (free[row], -row), default=None)
        taken |= set() if best is None else {best}
        rows.append(best)
    return rows


def check_marks(marks: Any) -> None:
    """Refuses marks that `person_marks` did not make; `None` is what older states have.

    Raises:
        ValueError: if they are no table.
    """
    if marks is None or (isinstance(marks, Tensor) and marks.dim() == 2 and marks.dtype == torch.int64):
        return
    raise ValueError("what it kept of its persons is no table of marks")


def check_tests(marks: Tensor, tests: Iterable[SampleTable], client: str) -> None:
    """Refuses data in which a picture that was trained on is tested on.

    Raises:
        FedReIDError: with the number of pictures.
    """
    trained = set(marks.flatten().tolist()) - {NONE}
    count = sum(mark_of(path) in trained for table in tests for path in table.paths)
    if count:
        raise FedReIDError(
            f"client {client}: {count} pictures that were trained on are test pictures now; keep the split that was "
            "drawn: lay the run's splits/NAME.csv into the dataset's folder as samples.csv, with the new pictures added"
        )


def with_persons(kept: Mapping[str, Any], head: Mapping[str, Tensor], rows: Sequence[int | None]) -> dict[str, Any]:
    """Returns what a client kept, with heads that fit its persons as they are now.

    Rows of known persons are moved to their new places, those of new persons are the rows of `head`. The same is done
    to heads among what callbacks kept. Momentum of heads and of second networks begins anew.

    Args:
        kept: the content of the client's file.
        head: a fresh head for the persons as they are now.
        rows: see `known_rows`.

    Raises:
        ValueError: if a callback kept something else for every person.
    """
    before = kept["head"]
    moved = {**kept, "head": _moved(before, head, rows)}
    moved["callbacks"] = {
        name: _with_heads(state, before, head, rows, name) for name, state in kept.get("callbacks", {}).items()
    }
    if "optimizer" in kept:
        momentum = kept["optimizer"]["momentum"]
        own = {name: value for name, value in momentum.items() if name.startswith("backbone.")}
        moved["optimizer"] = {**kept["optimizer"], "momentum": own}
    return moved


def _moved(before: Mapping[str, Tensor], fresh: Mapping[str, Tensor], rows: Sequence[int | None]) -> dict[str, Tensor]:
    moved = {name: value.clone() for name, value in fresh.items()}
    for name, value in moved.items():
        for place, row in enumerate(rows):
            if row is not None:
                value[place] = before[name][row]
    return moved


def _with_heads(
    state: Any, before: Mapping[str, Tensor], fresh: Mapping[str, Tensor], rows: Sequence[int | None], name: str
) -> Any:
    if isinstance(state, Tensor):
        if any(state.shape == value.shape and value.dim() > 1 for value in before.values()):
            raise ValueError(f"callbacks.{name} keeps something for every person, and the persons have changed")
        return state
    if not isinstance(state, dict):
        return state
    if state.keys() == before.keys() and all(
        isinstance(value, Tensor) and value.shape == before[key].shape for key, value in state.items()
    ):
        return _moved(state, fresh, rows)
    return {key: _with_heads(value, before, fresh, rows, name) for key, value in state.items()}
