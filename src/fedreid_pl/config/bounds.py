"""Checks the values of a configuration against the schema, and lists its keys with their help texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from itertools import pairwise
from typing import Any

from fedreid_pl.config.schema import Config
from fedreid_pl.errors import FedReIDError, printable, visible

LONGEST = 4096  # characters of a text
LARGEST = 10**15  # largest whole number; readers of a run's files accept no larger one


def check_bounds(config: Any, prefix: str = "", origins: Mapping[str, str] | None = None) -> None:
    """Checks every value of a config object against its field's bounds, and the fields against each other.

    Args:
        config: `Config` or a section of it.
        prefix: prefix of the section's keys in messages, such as `data.`.
        origins: the place where each key was set, such as a file and a line, for the message.

    Raises:
        FedReIDError: naming the key, its value, the bound and where the key was set.
    """
    for item in fields(config):
        value, limits, name = getattr(config, item.name), item.metadata, prefix + item.name
        if is_dataclass(value):
            check_bounds(value, name + ".", origins)
            continue
        if value is None:
            continue
        where = f" (set in {origins[name]})" if origins and ", line " in origins.get(name, "") else ""
        if limits["choices"] and value not in limits["choices"]:
            raise FedReIDError(f"{name}={value}: must be one of {', '.join(limits['choices'])}{where}")
        if limits["at_least"] is not None and not value >= limits["at_least"]:
            raise FedReIDError(f"{name}={value}: must be at least {limits['at_least']}{where}")
        if limits["above"] is not None and not value > limits["above"]:
            raise FedReIDError(f"{name}={value}: must be above {limits['above']}{where}")
        if limits["at_most"] is not None and not value <= limits["at_most"]:
            raise FedReIDError(f"{name}={value}: must be at most {limits['at_most']}{where}")
        if type(value) is int and value > LARGEST:
            raise FedReIDError(f"{name}={value}: must be at most {LARGEST}{where}")
        if isinstance(value, float) and value in (float("inf"), float("-inf")):
            raise FedReIDError(f"{name}={value}: must be finite{where}")
    if isinstance(config, Config):
        _check_together(config)


def check_texts(config: Config) -> None:
    """Checks that texts contain no control characters, and that the names of the experiment and data are no paths.

    Raises:
        FedReIDError: naming the key.
    """
    for key, value in _texts(asdict(config), ""):
        if len(value) > LONGEST or visible(value) != value:
            raise FedReIDError(
                f"{key}={printable(value)}: is too long, or contains a line break or a control character"
            )
    for key, name in (("name", config.name), ("data.name", config.data.name)):
        if "/" in name or "\\" in name or name.startswith(".") or len(name) > 100:
            raise FedReIDError(
                f"{key}={printable(name)}: a name has at most 100 characters and no '/', '\\\\' or leading '.'"
            )


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from ((key, str(name)), *_texts(item, f"{key}.{name}".lstrip(".")))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, key)


def _check_together(config: Config) -> None:
    instances, most = config.data.instances, config.batch_size // 2
    if instances is not None and instances > most:
        raise FedReIDError(
            f"data.instances={instances}: must be at most half of batch_size={config.batch_size}, "
            "so that a batch has two identities"
        )
    if instances is not None and config.data.incomplete_batches == "skip":
        raise FedReIDError(
            f"data.incomplete_batches=skip: with data.instances={instances} every batch is full; set only one of them"
        )
    if config.optim.nesterov and not config.optim.momentum:
        raise FedReIDError("optim.nesterov=true: needs optim.momentum above 0")
    if config.local_steps is not None and config.local_epochs != 1:
        raise FedReIDError(
            f"local_steps={config.local_steps}: conflicts with local_epochs={config.local_epochs}; a round has a "
            "number of steps or of epochs, set only one of them"
        )
    if config.optim.scope == "round" and config.optim.warmup > config.epochs_per_round:
        raise FedReIDError(
            f"optim.warmup={config.optim.warmup}: must be at most local_epochs={config.epochs_per_round} with "
            "optim.scope=round, which restarts the schedule in every round"
        )
    stones = config.optim.milestones
    if stones and (min(stones) < 1 or any(later <= stone for stone, later in pairwise(stones))):
        raise FedReIDError(f"optim.milestones={stones}: must be increasing whole numbers of at least 1")
    if stones and config.optim.schedule != "step":
        raise FedReIDError(
            f"optim.milestones={stones}: requires optim.schedule=step, but optim.schedule={config.optim.schedule}"
        )


def describe(schema: type = Config, prefix: str = "") -> list[tuple[str, str, str]]:
    """Returns `(dotted key, default, help)` of every key, in the order of the schema."""
    rows: list[tuple[str, str, str]] = []
    defaults = schema()
    for item in fields(schema):
        value = getattr(defaults, item.name)
        if is_dataclass(value):
            rows += describe(type(value), f"{prefix}{item.name}.")
        else:
            rows.append((prefix + item.name, "null" if value is None else str(value), item.metadata["help"]))
    return rows
