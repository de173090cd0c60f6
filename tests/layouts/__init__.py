"""Every layout in miniature, written from the descriptions of the datasets without the help of any reader.

`MINIATURES` makes each by the name of its folder; `write` puts one on disk. What a reader has to find is kept in plain
Python beside the files, so that a test compares the two.
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
