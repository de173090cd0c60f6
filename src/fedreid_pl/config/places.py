"""A configuration without what it says about the machine: for whatever leaves it."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

from fedreid_pl.config.schema import Config

FILE = "file"
"""What stands in place of the name of a file."""


def without_places(config: Config) -> dict[str, Any]:
    """Nested values of a configuration without any name of a file or folder.

    Words that are no path, such as `imagenet`, stay; `data.naming.shared_config` puts the names of the datasets back.

    >>> config = Config(output_dir="/home/me/runs/1")
    >>> config.data.root, config.model.weights = "/clinic/ward-7/pictures", "/home/me/resnet50.pth"
    >>> shared = without_places(config)
    >>> shared["data"]["root"], shared["output_dir"], shared["resume"], shared["model"]["weights"]
    (None, None, 'auto', 'file')
    """
    values = asdict(config)
    values["output_dir"] = values["data"]["root"] = values["data"]["cache_dir"] = values["data"]["public"] = None
    values["data"]["datasets"] = []
    values["resume"] = _word(values["resume"], ("auto", "never"))
    values["model"]["weights"] = _word(values["model"]["weights"], ("imagenet", "drawn", "none"))
    return values


def _word(text: str, words: tuple[str, ...]) -> str:
    """A choice as it is; the path of a file as `file`."""
    return text if text in words or re.fullmatch(r"[a-z]+:[\w.-]+", text) else FILE
