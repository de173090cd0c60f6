"""Finds callbacks and dataset layouts of other installed packages by their entry points.

A package declares its additions in its metadata, for example in its `pyproject.toml`:

    [project.entry-points."fedreid_pl.callbacks"]
    feddyn = "my_lab.feddyn:FedDyn"

The user decides which packages are installed. Therefore a name of an entry point may come from the command line, an
experiment file, the configuration in a run folder, or a message. An import path from a run folder or a message is
never imported.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from fedreid_pl.errors import FedReIDError, printable

Group = Literal["callbacks", "layouts"]


def installed_names(group: Group) -> list[str]:
    """Returns the sorted names that installed packages add to a group."""
    return sorted({point.name for point in _points(group)})


def load_installed(group: Group, name: str) -> Any:
    """Imports and returns the object that an installed package adds under a name.

    Raises:
        KeyError: if no installed package adds the name.
        FedReIDError: if two packages add the name, or the package cannot be imported.
    """
    points = [point for point in _points(group) if point.name == name]
    if not points:
        raise KeyError(name)
    if len({point.value for point in points}) > 1:
        packages = " and ".join(sorted(_package(point) for point in points))
        raise FedReIDError(f"{group}.{name}: is added by two installed packages, {packages}; uninstall one of them")
    try:
        return points[0].load()
    except Exception as error:  # code of another package: it may raise anything
        raise FedReIDError(
            f"{group}.{name}: {points[0].value} of the installed package {_package(points[0])} cannot be imported "
            f"({type(error).__name__}: {printable(str(error), 200)}); repair or uninstall the package"
        ) from error


def check_not_shipped(group: Group, name: str) -> None:
    """Checks that no installed package adds a name that fedreid_pl itself provides.

    Raises:
        FedReIDError: if a package adds the name; the message names the package.
    """
    points = [point for point in _points(group) if point.name == name]
    if points:
        raise FedReIDError(
            f"{group}.{name}: the installed package {_package(points[0])} adds a name that fedreid_pl itself provides; "
            "rename the entry point or uninstall the package"
        )


def _points(group: Group) -> list[EntryPoint]:
    return list(entry_points(group=f"fedreid_pl.{group}"))


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.module
