"""Types of summary.json and splits.json; readers check the files against them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from fedreid_pl.reporting.typed_json import Amount, Count, Digest, Name, Number, Share, read_typed

ROOT = "data.root"
"""Entry of splits.json about all datasets together; no dataset has this name."""
SUMMARY, SPLITS = "summary.json", "splits.json"
MOST = 32 * 1024 * 1024  # bytes
PER_CLIENT = Field(max_length=100_000)
SCORES = Annotated[dict[Name, dict[Name, dict[Name, Share]]], Field(max_length=2_000)]
"""Scores by test set, metric and statistic."""


class Costs(TypedDict, total=False):
    """Bytes, seconds and memory of a run."""

    backbone_bytes: Count
    bytes_down: Count
    bytes_up: Count
    peak_memory_bytes: Count
    seconds: Annotated[dict[Name, Amount], Field(max_length=100)]


class Start(TypedDict):
    """The pretrained weights from which a run started."""

    name: Name
    sha256: Digest


class Span(TypedDict):
    """Rounds in which a client was a member; `last` is null for a current member."""

    first: Count
    last: Count | None
    images: Count


Sections = TypedDict(  # `global` cannot be a field of a class
    "Sections",
    {
        "global": SCORES,
        "local": SCORES,
        "val_global": SCORES,
        "val_local": SCORES,
        "unseen": SCORES,
        "unseen_models": SCORES,
    },
    total=False,
)


class Summary(Sections, total=False):
    """The keys of summary.json that are read; other keys are ignored."""

    name: Name
    data: Name
    synthetic: bool
    seed: Count
    rounds: Count
    complete: bool
    fingerprint: Digest
    setting: Digest
    start: Start | None
    clients: Annotated[dict[Name, Count], PER_CLIENT]
    members: Annotated[dict[Name, Annotated[list[Span], Field(max_length=10_000)]], PER_CLIENT]
    rejections: Annotated[dict[Name, dict[str, list[Count]]], PER_CLIENT]
    best_round: Count | None
    best_by: Name
    weights: Annotated[dict[Name, Number], PER_CLIENT]
    rejected: Annotated[dict[Name, Count], PER_CLIENT]
    costs: Costs
    versions: Annotated[dict[Name, Name], Field(max_length=100)]


class Split(TypedDict, total=False):
    """What a run read of one dataset."""

    layout: Name
    train: Count
    query: Count
    gallery: Count
    sha256: Digest


_SUMMARY: TypeAdapter[Summary] = TypeAdapter(Summary)
_SPLITS: TypeAdapter[dict[str, Split]] = TypeAdapter(Annotated[dict[Name, Split], Field(max_length=10_000)])


def read_summary(folder: Path) -> dict[str, Any] | None:
    """Reads the summary of a run; returns `None` if there is no file.

    Raises:
        FedReIDError: if the file has another format than a run writes.
    """
    found: dict[str, Any] | None = read_typed(folder, SUMMARY, _SUMMARY, MOST)
    return found


def read_splits(folder: Path) -> dict[str, dict[str, Any]]:
    """Reads what a run read of every dataset; empty if there is no file.

    Raises:
        FedReIDError: if the file has another format than a run writes.
    """
    found: dict[str, dict[str, Any]] | None = read_typed(folder, SPLITS, _SPLITS, MOST)
    return {name: entry for name, entry in (found or {}).items() if name != ROOT}
