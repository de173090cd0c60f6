"""inspection.json: details behind the scores of a run's test sets, for the report and for loggers.

    {"version": 1, "round": 30, "images": true,
     "tests": {TEST: {"model": "global" or a client's name,
                      "cmc": [share of queries with a match up to rank 1, 2, ... 50],
                      "cmcs": {MODEL: the same for every model that was tested},
                      "persons": {MODEL: {"queries": [by person], "rank1": [...], "mAP": [...]}},
                      "open_set": {MODEL: {"tpr@fpr=0.01", "dir@far=0.01", "queries", ..., null if unknown}},
                      "reranked": {MODEL: {"rank1", "rank5", "rank10", "mAP"}}, only with report.rerank,
                      "ranked": [{"query": {"identity", "camera", "image"}, "hardest": bool, "average_precision",
                                  "gallery": [{"identity", "camera", "score", "correct", "image"}, ... up to ten]}],
                      "confusions": [{"identity", "mistaken_for", "count"}]}},
     "thresholds": {MODEL: {"value", "far", "queries", "clients", "persons"}}, only with data.val_ids,
     "embedding": {"method", "model", "explained": {"before", "after"},
                   "points": [{"test", "identity", "camera", "before": [x, y], "after": [x, y]}]} or null}

Images are paths in the run's folder. If `images` is false, the file contains no data of single images: `ranked` and
`confusions` are empty and `embedding` is null. A negative identity in a gallery is a distractor. Files of earlier
versions have no `persons`, `open_set`, `reranked` and `thresholds`. Persons are in ascending order of identity; their
identities are not saved.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import FailFast, Field, TypeAdapter
from typing_extensions import NotRequired, TypedDict

from fedreid_pl.bounded import inside
from fedreid_pl.config import Config
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.storage import write_text
from fedreid_pl.reporting.typed_json import Amount, Count, Name, Number, Share, Whole, read_typed

NAME, IMAGES, VERSION = "inspection.json", "images", 1
MOST = 64 * 1024 * 1024  # bytes
Curve = Annotated[list[Share], Field(max_length=1_000), FailFast()]
MODELS = Field(max_length=100_000)
PERSONS = Field(min_length=1, max_length=1_000_000)
Place = Annotated[list[Number], Field(min_length=2, max_length=2)]


class Threshold(TypedDict):
    """Cosine similarity above which a search reports a person as found, and the data that determined it."""

    value: Number
    far: Share
    queries: Count
    clients: Count
    persons: Count


class Query(TypedDict):
    """An image of a person."""

    identity: Whole
    camera: Whole
    image: Name


class Found(Query):
    """An image of the gallery, with its score and whether it shows the query's person."""

    score: Number
    correct: bool


class Ranked(TypedDict):
    """A query and the gallery images that the model ranks first."""

    query: Query
    hardest: bool
    average_precision: Share
    gallery: Annotated[list[Found], Field(max_length=100), FailFast()]


class Confusion(TypedDict):
    """A pair of persons that the model confuses, and the number of queries."""

    identity: Whole
    mistaken_for: Whole
    count: Count


class Persons(TypedDict):
    """Number of counted queries and mean scores of every test person, in ascending order of identity."""

    queries: Annotated[list[Annotated[int, Field(ge=1, le=10**15)]], PERSONS, FailFast()]
    rank1: Annotated[list[Share], PERSONS, FailFast()]
    mAP: Annotated[list[Share], PERSONS, FailFast()]


class Tested(TypedDict):
    """Details of one test set."""

    model: Name
    cmc: Curve
    cmcs: Annotated[dict[Name, Curve], MODELS]
    persons: NotRequired[Annotated[dict[Name, Persons], MODELS]]
    open_set: NotRequired[Annotated[dict[Name, dict[Name, Amount | None]], MODELS]]
    reranked: NotRequired[Annotated[dict[Name, dict[Name, Share]], MODELS]]
    ranked: Annotated[list[Ranked], Field(max_length=100), FailFast()]
    confusions: Annotated[list[Confusion], Field(max_length=100), FailFast()]


class Point(TypedDict):
    """One query in the plot of features."""

    test: Name
    identity: Whole
    camera: Whole
    before: Place
    after: Place


class Explained(TypedDict):
    """Share of the variance that the plot of features shows, before and after training."""

    before: Share | None
    after: Share | None


class Embedding(TypedDict):
    """The plot of features."""

    method: Literal["PCA", "t-SNE"]
    model: Name
    explained: Explained
    points: Annotated[list[Point], Field(min_length=1, max_length=20_000), FailFast()]


class Inspection(TypedDict):
    """Content of the file."""

    version: Literal[1]
    round: Count
    images: bool
    tests: Annotated[dict[Name, Tested], Field(max_length=2_000)]
    thresholds: NotRequired[Annotated[dict[Name, Threshold], MODELS]]
    embedding: Embedding | None


_INSPECTION: TypeAdapter[Inspection] = TypeAdapter(Inspection)


def shows_images(config: Config) -> bool:
    """Returns whether the run may write data of single images: `report.images`, by default only for synthetic data."""
    return config.data.synthetic if config.report.images is None else config.report.images


def read_inspection(folder: Path) -> dict[str, Any] | None:
    """Reads the inspection of a run; returns `None` if there is no file.

    Raises:
        FedReIDError: if the file has another format than this version writes.
    """
    found: dict[str, Any] | None = read_typed(folder, NAME, _INSPECTION, MOST)
    for name, test in (found or {"tests": {}})["tests"].items():
        if len({len(curve) for curve in (test["cmc"], *test["cmcs"].values())}) > 1:
            raise FedReIDError(f"{folder / NAME}: the curves of {name} have different lengths")
        if any(len({*map(len, persons.values())}) > 1 for persons in test.get("persons", {}).values()):
            raise FedReIDError(f"{folder / NAME}: the scores by person of {name} have different lengths")
    return found


def read_thresholds(folder: Path, round: int) -> dict[str, dict[str, Any]]:
    """Returns the thresholds of a run's models by model; empty if the round calibrated none.

    Raises:
        FedReIDError: if the file has another format than this version writes.
    """
    found = read_inspection(folder) or {}
    return found.get("thresholds", {}) if found.get("round") == round else {}


def without_images(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a copy without data of single images."""
    tests = {name: {**test, "ranked": [], "confusions": []} for name, test in content["tests"].items()}
    return {**content, "images": False, "tests": tests, "embedding": None}


def write_inspection(folder: Path, content: Mapping[str, Any], images: Mapping[str, bytes]) -> None:
    """Writes the images and inspection.json; replaces earlier images.

    Args:
        folder: folder of the run.
        content: content of inspection.json.
        images: JPEG files by their name in `images/`.

    Raises:
        FedReIDError: if the folder cannot be written.
    """
    new, place = folder / f".{IMAGES}.new", folder / IMAGES
    try:
        inside(folder, IMAGES)
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
