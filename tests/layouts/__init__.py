"""Every layout in miniature, written from the descriptions of the datasets independently of the readers.

`MINIATURES` maps a folder name to the function that makes the miniature; `write` writes it to the disk. Each miniature
contains the expected result of its reader in plain Python.
"""

from __future__ import annotations

from collections.abc import Callable

from .disk import write
from .large import LARGE
from .made import MADE
from .matlab import MATLAB
from .record import DISTRACTOR, GALLERY, JUNK, QUERY, TRAIN, Draw, Miniature, Protocol, Shot
from .small import SMALL

MINIATURES: dict[str, Callable[[], Miniature]] = {**LARGE, **SMALL, **MADE, **MATLAB}

__all__ = [
    "DISTRACTOR",
    "GALLERY",
    "JUNK",
    "MATLAB",
    "MINIATURES",
    "QUERY",
    "SMALL",
    "TRAIN",
    "Draw",
    "Miniature",
    "Protocol",
    "Shot",
    "write",
]
