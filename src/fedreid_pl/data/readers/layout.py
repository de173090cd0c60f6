"""What every reader module defines: its layout's name, recogniser and reader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fedreid_pl.data.samples import SampleTable


@dataclass(frozen=True)
class ReadOptions:
    """How a dataset is read, the same for every layout.

    Args:
        train_only: read the training images alone; an unlabelled public set has nothing else.
        split: which of several official or drawn splits, from 0; a layout with one fixed split takes no notice of it.
        seed: of a drawn split.
        name_pattern: the regular expression of `data.name_pattern`; a layout that reads no names takes no notice of it.
        test_ids: share of the persons that are tested where the reader splits them.
    """

    train_only: bool = False
    split: int = 0
    seed: int = 0
    name_pattern: str | None = None
    test_ids: float = 0.5


@dataclass(frozen=True)
class Layout:
    """One way of putting a dataset into a folder. A module of this package defines `LAYOUT` or a tuple `LAYOUTS`.

    Args:
        key: the value of `data.layout`, such as `"msmt17"`.
        title: the name for people, such as `"MSMT17 (V1, V2)"`.
        expects: one line saying what a folder of this layout holds, for messages.
        recognise: whether a folder has this layout, from a few names in it; opens no image and never raises. At most
            one layout recognises a folder.
        read: the table of the dataset in a folder (folder, name, options); raises `FedReIDError`.
        drawn: whether who trains, or what is a camera, may be drawn and is not in the files.
        unused: folders of the layout whose files its protocol does not use, or only some of them.
        found: how person and camera are found, in a few words; a reader that depends on the files says it in the table.
        named: whether names are read by the grammar of `data.names`, so that `data.name_pattern` applies.
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
