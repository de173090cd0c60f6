"""Records the import paths that the user of this process gave. The program imports only these."""

from __future__ import annotations

import re

_TRUSTED: set[str] = set()


def is_import_path(name: str) -> bool:
    """Returns whether a value of `model.name` is an import path `package.module:callable`.

    >>> is_import_path("my_lab.networks:wide"), is_import_path("resnet50"), is_import_path("timm:resnet50")
    (True, False, False)
    """
    path = re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*", name)
    return path is not None and not name.startswith("timm:")


def trust(name: str) -> None:
    """Allows the import of a value of `model.name` that the user gave in a command, in a file or in a call."""
    if is_import_path(name):
        _TRUSTED.add(name)


def is_trusted(name: str) -> bool:
    """Returns whether the user gave an import path, in contrast to a path from a run folder or a network message."""
    return name in _TRUSTED
