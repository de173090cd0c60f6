"""The definition of a layout: its key, its recogniser and its reader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fedreid_pl.data.samples import SampleTable


@dataclass(frozen=True)
class ReadOptions:
    """Options of a reader, the same for every layout.

    Args:
        train_only: read only the training images; an unlabelled public set has no others.
        split: number of an official or random split, from 0; a layout with one fixed split ignores it.
        seed: seed of a random split.
        name_pattern: the regular expression of `data.name_pattern`; a layout that does not parse names ignores it.
        test_ids: share of test persons, if the reader splits the persons.
    """

    train_only: bool = False
    split: int = 0
    seed: int = 0
    name_pattern: str | None = None
    test_ids: float = 0.5


@dataclass(frozen=True)
class Layout:
    """The organisation of a dataset in a folder. A module of this package defines `LAYOUT` or a tuple `LAYOUTS`.

    Args:
        key: value of `data.layout`, such as `"msmt17"`.
        title: display name, such as `"MSMT17 (V1, V2)"`.
        expects: one line about the expected content of the folder, for messages.
        recognise: function that returns whether a folder has this layout. It looks at a few names, opens no image and
            never raises. At most one layout recognises a folder.
        read: function of (folder, name, options) that returns the table of the dataset; raises `FedReIDError`.
        drawn: whether the split or the cameras may be drawn at random, because they are not in the files.
        unused: folders of the layout whose files the protocol does not use, or uses only in part.
        found: short description of how person and camera are found; empty if it depends on the files (then the reader
            sets it in the table).
        named: whether names are parsed by the grammar of `data.names`, so that `data.name_pattern` applies.
    """

    key: str
    title: str
    expects: str
    recognise: Callable[[Path], bool]
    read: Callable[[Path, str, ReadOptions], SampleTable]
    drawn: bool = False
    unused: tuple[str, ...] = ()
    found: str = ""
    named: bool = False
