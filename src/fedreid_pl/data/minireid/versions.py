"""Checks that runs of different versions of MiniReID are neither compared nor resumed as each other."""

from __future__ import annotations

from collections.abc import Iterable

from fedreid_pl.config import DataConfig
from fedreid_pl.data.minireid.store import name_of
from fedreid_pl.errors import FedReIDError


def version_of(config: DataConfig) -> int | None:
    """Returns the version of MiniReID in a configuration, or `None` for other data.

    >>> version_of(DataConfig(source="minireid", version=2)), version_of(DataConfig(source="folder"))
    (2, None)
    """
    return config.version if config.source == "minireid" else None


def check_resumed_version(place: str, before: DataConfig, now: DataConfig) -> None:
    """Raises an error if a run of one version of MiniReID is resumed as a run of another version.

    Args:
        place: the run's folder or checkpoint.
        before: data section of the run.
        now: data section of the configuration that resumes the run.

    Raises:
        FedReIDError: if the versions differ.
    """
    old, new = version_of(before), version_of(now)
    if None not in (old, new) and old != new:
        raise FedReIDError(
            f"{place}: is a run of version {old} of MiniReID, but this configuration uses version {new}; "
            f"give {name_of(old)}, or another folder"  # type: ignore[arg-type]
        )


def check_one_version(runs: Iterable[tuple[str, DataConfig]]) -> None:
    """Raises an error if runs of different versions of MiniReID are compared.

    Args:
        runs: name and data section of every run.

    Raises:
        FedReIDError: if the versions differ; the message names two runs.
    """
    first: dict[int, str] = {}
    for name, config in runs:
        version = version_of(config)
        if version is not None:
            first.setdefault(version, name)
    if len(first) > 1:
        (one, run), (two, other) = sorted(first.items())[:2]
        raise FedReIDError(
            f"{run} is a run of version {one} of MiniReID and {other} of version {two}; "
            "runs of different versions are never compared: leave one of them out"
        )
