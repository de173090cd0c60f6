"""A configuration without what it says about the machine: for whatever leaves it."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

from fedreid_pl.config.schema import Config


def without_places(config: Config) -> dict[str, Any]:
    """Nested values of a configuration; of files and folders there is at most the last part of the name.

    >>> config = Config(output_dir="/home/me/runs/1")
    >>> config.data.root, config.model.weights = "/clinic/ward-7/pictures", "/home/me/resnet50.pth"
    >>> shared = without_places(config)
    >>> shared["data"]["root"], shared["output_dir"], shared["resume"], shared["model"]["weights"]
    (None, None, 'auto', 'resnet50.pth')
    """
    values = asdict(config)
    values["output_dir"] = values["data"]["root"] = values["data"]["cache_dir"] = None
    for section, key in ((values, "resume"), (values["model"], "weights"), (values["data"], "public")):
        if section[key]:
            section[key] = os.path.basename(section[key].rstrip("/"))
    return values
