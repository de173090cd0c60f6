"""The registry of dataset layouts: every module in `fedreid_pl.data.readers` that defines `LAYOUT` or `LAYOUTS`.

Other installed packages add layouts by entry points of the group `fedreid_pl.layouts`; the name of the entry point is
the layout's key.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from pathlib import Path

from fedreid_pl.data import readers
from fedreid_pl.data.readers.layout import Layout, ReadOptions
from fedreid_pl.errors import FedReIDError
from fedreid_pl.installed import check_not_shipped, installed_names, load_installed

__all__ = ["Layout", "ReadOptions", "find_layouts", "recognise_layout"]


def find_layouts() -> dict[str, Layout]:
    """Returns every layout by its key, in alphabetical order.

    >>> "market1501" in find_layouts()
    True
    """
    return dict(_collect())


def recognise_layout(folder: Path) -> Layout | None:
    """Returns the layout of `folder`, or `None` if no layout recognises it."""
    return next((layout for layout in find_layouts().values() if layout.recognise(folder)), None)


@functools.cache
def _collect() -> tuple[tuple[str, Layout], ...]:
    found: dict[str, Layout] = {}
    for module in pkgutil.iter_modules(readers.__path__):
        source = importlib.import_module(f"{readers.__name__}.{module.name}")
        single = [source.LAYOUT] if hasattr(source, "LAYOUT") else []
        for layout in [*single, *getattr(source, "LAYOUTS", ())]:
            if layout.key in found:
                raise RuntimeError(f"two readers have the layout {layout.key}; the second is {source.__name__}")
            found[layout.key] = layout
    for key in found:
        check_not_shipped("layouts", key)
    for key in installed_names("layouts"):
        layout = load_installed("layouts", key)
        if not isinstance(layout, Layout) or layout.key != key:
            raise FedReIDError(
                f"layouts.{key}: the entry point of an installed package must be a Layout with the key {key}, got "
                f"{layout!r}"
            )
        found[key] = layout
    return tuple(sorted(found.items()))
