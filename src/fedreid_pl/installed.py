"""What other installed packages add: callbacks and dataset layouts, found by their entry points.

A package lists what it adds in its own metadata, for instance in its `pyproject.toml`:

    [project.entry-points."fedreid_pl.callbacks"]
    feddyn = "my_lab.feddyn:FedDyn"

Installing a package is the user's decision, so the code behind an entry point may be imported whoever names it: the
command line, an experiment file, the configuration of a run's folder, or a message. An import path in a run's folder or
in a message is never followed.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from fedreid_pl.errors import FedReIDError, printable

Group = Literal["callbacks", "layouts"]


def installed_names(group: Group) -> list[str]:
    """Returns the names that installed packages add to a group, sorted."""
    return sorted({point.name for point in _points(group)})


def load_installed(group: Group, name: str) -> Any:
    """Imports what an installed package adds under a name.

    Raises:
        KeyError: if no installed package adds it.
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
            f"({type(error).__name__}: {printable(str(error), 200)}); mend or uninstall the package"
        ) from error


def check_not_shipped(group: Group, name: str) -> None:
    """Refuses an installed package that adds a name which fedreid_pl ships itself.

    Raises:
        FedReIDError: naming the package.
    """
    points = [point for point in _points(group) if point.name == name]
    if points:
        raise FedReIDError(
            f"{group}.{name}: the installed package {_package(points[0])} adds a name that fedreid_pl ships itself; "
            "rename the entry point or uninstall the package"
        )


def _points(group: Group) -> list[EntryPoint]:
    return list(entry_points(group=f"fedreid_pl.{group}"))


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.module
