"""Implements `fedreid-pl search`."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from fedreid_pl.commands.embed import load_model, model_words, name_damaged
from fedreid_pl.commands.words import complain, number, yes_or_no
from fedreid_pl.errors import FedReIDError, counted, printable

if TYPE_CHECKING:
    from fedreid_pl.retrieval.features import Features
    from fedreid_pl.retrieval.gallery import Gallery
    from fedreid_pl.retrieval.matching import Match
    from fedreid_pl.retrieval.model import ReIDModel

SEARCH = (
    *("k", "page", "checkpoint", "client", "device", "rerank", "group", "pooling", "camera", "audit", "save"),
    *("threshold", "index", "model.name"),
)


def search(words: list[str]) -> int:
    """Searches a gallery for the persons in query pictures, and prints the matches, scores and verdicts."""
    options, (run, place, query) = model_words(words, "search RUN GALLERY QUERY [k=10] [page=FILE.html]", SEARCH, 3)
    k = number("k", options.get("k", "10"))
    group, pooling = options.get("group", "row"), options.get("pooling", "best")
    for key, value, choices in (("group", group, ("row", "person")), ("pooling", pooling, ("best", "mean"))):
        if value not in choices:
            raise FedReIDError(f"{key}={value}: give {' or '.join(choices)}")
    if pooling == "mean" and group == "row":
        raise FedReIDError("pooling=mean: has no effect with group=row; add group=person, or leave it out")
    rerank = yes_or_no("rerank", options.get("rerank", "false"))
    _check_places(place, query, options)
    given = _threshold(options["threshold"]) if "threshold" in options else None
    model = load_model(run, options)
    if given is not None:
        model.threshold, model.calibrated_on = given, None
    found = model.embed_files(_existing(query))
    name_damaged(found.damaged)
    if not len(found):
        raise FedReIDError(f"{query}: no picture can be read")
    gallery, pictures = _gallery(model, place, options)
    answers = gallery.search(
        found.values,
        k,
        options.get("camera"),
        group,  # type: ignore[arg-type]
        pooling,  # type: ignore[arg-type]
        rerank,
        found.header,
    )
    # the threshold applies to the cosine similarity of two pictures only
    threshold = None if rerank or (group, pooling) == ("person", "mean") else model.threshold
    _print(gallery, found, answers, rerank, threshold)
    if "camera" in options and options["camera"] not in gallery.cameras():
        complain(f"note: camera={printable(options['camera'])} leaves out nothing: the gallery has no such camera")
    if threshold is None and model.threshold is not None:
        complain("note: the threshold is not applied, because it does not fit re-ranked distances or means over rows")
    elif threshold is None:
        complain(
            "note: this model has no calibrated threshold, so the best match may be another person; train with "
            "data.val_ids=0.1 to calibrate a threshold, or set threshold=VALUE"
        )
    elif model.calibrated_on is not None and len(gallery.persons()) > model.calibrated_on:
        complain(
            f"note: the threshold was calibrated on galleries of up to {model.calibrated_on} persons; with "
            f"{counted(len(gallery.persons()), 'person')}, expect more false matches of absent persons"
        )
    if "page" in options:
        from fedreid_pl.retrieval.page import write_page

        if pictures is None:
            complain("note: a gallery file contains no pictures, so the page shows only names")
        page, asked = (Path(os.path.expanduser(word)) for word in (options["page"], query))
        write_page(page, model.card, found.names, asked, answers, pictures, threshold, rerank)
        print(f"page: {page}")
    return 0


def _threshold(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not -1 <= value <= 1:
        raise FedReIDError(f"threshold={text}: give a cosine similarity from -1 to 1")
    return value


def _gallery(model: ReIDModel, place: str, options: dict[str, str]) -> tuple[Gallery, Path | None]:
    """Returns the gallery, and the folder of its pictures if the gallery is read from a folder."""
    from fedreid_pl.reporting.status import Status
    from fedreid_pl.retrieval.gallery import Gallery

    path = _existing(place)
    index, audit = options.get("index", "exact"), options.get("audit")
    if path.is_file():
        return Gallery.load(path, index=index, audit=audit), None
    status = Status()
    found = model.embed_files(path, progress=lambda done, all: status(f"embedding pictures: {done} of {all}"))
    status.done()
    name_damaged(found.damaged)
    if not len(found):
        raise FedReIDError(f"{path}: no picture can be read")
    gallery = Gallery(options.get("save"), index=index, audit=audit)  # creates the file, so it comes last
    gallery.add_features(found)
    return gallery, path


def _check_places(place: str, query: str, options: dict[str, str]) -> None:
    """Checks the files that the search reads and writes, before the model is loaded."""
    from fedreid_pl.federation.storage import check_output
    from fedreid_pl.retrieval.gallery import Gallery
    from fedreid_pl.retrieval.index import check_index

    path, _ = _existing(place), _existing(query)
    check_index(options.get("index", "exact"))
    for key in {"page", "audit", "save"} & set(options):
        check_output(Path(os.path.expanduser(options[key])), key)
    if "save" not in options:
        return
    save = Path(os.path.expanduser(options["save"]))
    if path.is_file():
        raise FedReIDError(f"save={options['save']}: {path} is already a gallery file; leave save= out")
    if save.exists() and len(Gallery(save)):
        raise FedReIDError(f"save={options['save']}: the file exists; give it as GALLERY, or choose another file name")


def _existing(path: str) -> Path:
    found = Path(os.path.expanduser(path))
    if not found.exists():
        raise FedReIDError(f"{path}: no such file or folder")
    return found


def _print(
    gallery: Gallery, found: Features, answers: list[list[Match]], rerank: bool, threshold: float | None
) -> None:
    from fedreid_pl.retrieval.matching import verdict

    column = "distance" if rerank else "similarity"
    rows, persons = len(gallery), len(gallery.persons())
    for name, matches in zip(found.names, answers, strict=True):
        print(f"{name}: searched {counted(rows, 'row')} of {counted(persons, 'person')}")
        if not matches:
            print("  no match: no gallery row may be compared with this query")
            continue
        width = max(len("person"), *(len(match.person) for match in matches))
        cameras = max(len("camera"), *(len(match.camera) for match in matches))
        print(f"  {'':>3}  {column:>10}  {'person':<{width}}  {'camera':<{cameras}}  picture")
        for place, match in enumerate(matches, 1):
            score = -match.score if rerank else match.score
            print(f"  {place:>3}  {score:>10.4f}  {match.person:<{width}}  {match.camera:<{cameras}}  {match.source}")
        if threshold is not None:
            print(f"  {verdict(matches, threshold)}")
