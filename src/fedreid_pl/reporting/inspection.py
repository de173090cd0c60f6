"""inspection.json: what the test sets of a run look like behind their scores, for the report and for loggers.

    {"version": 1, "round": 30, "images": true,
     "tests": {TEST: {"model": "global" or a client's name,
                      "cmc": [share of queries with a match up to rank 1, 2, ... 50],
                      "cmcs": {MODEL: the same for every model that was tested},
                      "ranked": [{"query": {"identity", "camera", "image"}, "hardest": bool, "average_precision",
                                  "gallery": [{"identity", "camera", "score", "correct", "image"}, ... up to ten]}],
                      "confusions": [{"identity", "mistaken_for", "count"}]}},
     "embedding": {"method", "model", "explained": {"before", "after"},
                   "points": [{"test", "identity", "camera", "before": [x, y], "after": [x, y]}]} or null}

Images are paths in the run's folder. Without `images` there is nothing in it that belongs to a single image: `ranked`
and `confusions` are empty and `embedding` is null. A negative identity in a gallery is a distractor.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedreid_pl.config import Config
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.storage import write_text

NAME, IMAGES, VERSION = "inspection.json", "images", 1
TEST = {"model", "cmc", "cmcs", "ranked", "confusions"}
"""What is there of every test set."""


def shows_images(config: Config) -> bool:
    """Whether the run may write what belongs to single images: `report.images`, by default for synthetic data only."""
    return config.data.synthetic if config.report.images is None else config.report.images


def read_inspection(folder: Path) -> dict[str, Any] | None:
    """The inspection of a run, `None` if there is none that can be read."""
    try:
        content = json.loads((folder / NAME).read_text(encoding="utf-8"))
        known = content["version"] == VERSION and set(content) >= {"round", "images", "embedding"}
        known = known and all(set(test) >= TEST for test in content["tests"].values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return content if known else None


def without_images(content: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with nothing that belongs to a single image."""
    tests = {name: {**test, "ranked": [], "confusions": []} for name, test in content["tests"].items()}
    return {**content, "images": False, "tests": tests, "embedding": None}


def write_inspection(folder: Path, content: Mapping[str, Any], images: Mapping[str, bytes]) -> None:
    """Writes the images (by their name in `images/`), in place of those that were there, then inspection.json.

    Raises:
        FedReIDError: if the folder cannot be written.
    """
    new, place = folder / f".{IMAGES}.new", folder / IMAGES
    try:
        shutil.rmtree(new, ignore_errors=True)
        if images:
            new.mkdir(parents=True)
        for name, data in images.items():
            (new / name).write_bytes(data)
        if place.exists():
            shutil.rmtree(place)
        if images:
            new.rename(place)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        raise FedReIDError(f"{place}: cannot be written ({error.strerror or error})") from error
    write_text(folder / NAME, json.dumps(content) + "\n")
