"""The registry of dataset layouts: every module in `fedreid_pl.data.readers` that defines `LAYOUT` or `LAYOUTS`."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from pathlib import Path

from fedreid_pl.data import readers
from fedreid_pl.data.readers.layout import Layout, ReadOptions

__all__ = ["Layout", "ReadOptions", "find_layouts", "recognise_layout"]


def find_layouts() -> dict[str, Layout]:
    """Every layout by its key, in alphabetical order.

    >>> "market1501" in find_layouts()
    True
    """
    return dict(_collect())


def recognise_layout(folder: Path) -> Layout | None:
    """The layout of `folder`, or `None` if no recogniser knows it."""
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
    return tuple(sorted(found.items()))
