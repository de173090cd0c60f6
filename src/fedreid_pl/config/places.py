"""Makes the paths of a configuration absolute for other processes, or removes them before it leaves the machine."""

from __future__ import annotations

import re
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from fedreid_pl.config.schema import Config

Section = TypeVar("Section")

FILE = "file"
"""Placeholder for the path of a file."""


def absolute(config: Section) -> Section:
    """Returns a configuration, or a section of it, with absolute paths, for a process in another working folder.

    The keys `resume` and `model.weights` do not change, because they may hold words such as `imagenet`.

    >>> config = absolute(Config(output_dir="runs/1"))
    >>> config.output_dir == str(Path("runs/1").absolute()), config.resume
    (True, 'auto')
    """
    changed: dict[str, Any] = {}
    for item in fields(config):  # type: ignore[arg-type]
        value = getattr(config, item.name)
        if is_dataclass(value) and not isinstance(value, type):
            changed[item.name] = absolute(value)
        elif item.metadata.get("path") and isinstance(value, str) and item.name not in ("resume", "weights"):
            changed[item.name] = str(Path(value).expanduser().absolute())
    return replace(config, **changed)  # type: ignore[type-var]


def without_places(config: Config) -> dict[str, Any]:
    """Returns the nested values of a configuration without the names of files and folders.

    Words such as `imagenet` stay. `data.naming.shared_config` adds the names of the datasets again.

    >>> config = Config(output_dir="/home/me/runs/1")
    >>> config.data.root, config.model.weights = "/clinic/ward-7/pictures", "/home/me/resnet50.pth"
    >>> shared = without_places(config)
    >>> shared["data"]["root"], shared["output_dir"], shared["resume"], shared["model"]["weights"]
    (None, None, 'auto', 'file')
    """
    values = asdict(config)
    values["output_dir"] = values["data"]["root"] = values["data"]["cache_dir"] = values["data"]["public"] = None
    values["data"]["datasets"], values["engine"]["address"] = [], None
    values["resume"] = _word(values["resume"], ("auto", "never"))
    values["model"]["weights"] = _word(values["model"]["weights"], ("imagenet", "drawn", "none"))
    return values


def _word(text: str, words: tuple[str, ...]) -> str:
    """Returns a choice unchanged, and `file` for a path."""
    return text if text in words or re.fullmatch(r"[a-z]+:[\w.-]+", text) else FILE
