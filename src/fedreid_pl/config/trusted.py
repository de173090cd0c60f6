"""Import paths that the user of this process has given: only these are followed."""

from __future__ import annotations

import re

_TRUSTED: set[str] = set()


def is_import_path(name: str) -> bool:
    """Whether a value of `model.name` is an import path `package.module:callable`.

    >>> is_import_path("my_lab.networks:wide"), is_import_path("resnet50"), is_import_path("timm:resnet50")
    (True, False, False)
    """
    path = re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*", name)
    return path is not None and not name.startswith("timm:")


def trust(name: str) -> None:
    """Lets a value of `model.name` be imported: the user gave it on the command line, in an own file, or in a call."""
    if is_import_path(name):
        _TRUSTED.add(name)


def is_trusted(name: str) -> bool:
    """Whether an import path is the user's own, not one that stands in a run's folder or in a message."""
    return name in _TRUSTED
