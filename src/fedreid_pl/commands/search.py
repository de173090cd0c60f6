"""`fedreid-pl search`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from fedreid_pl.commands.embed import load_model, model_words, name_damaged, number, yes_or_no
from fedreid_pl.commands.words import complain
from fedreid_pl.errors import FedReIDError

if TYPE_CHECKING:
    from fedreid_pl.retrieval.features import Features
    from fedreid_pl.retrieval.gallery import Gallery
    from fedreid_pl.retrieval.matching import Match
    from fedreid_pl.retrieval.model import ReIDModel

SEARCH = (
    *("k", "page", "checkpoint", "client", "device", "rerank", "group", "pooling", "camera", "audit", "save"),
    "model.name",
)


def search(words: list[str]) -> int:
    """Searches a gallery for the persons on pictures; prints names and scores."""
    options, (run, place, query) = model_words(words, "search RUN GALLERY QUERY [k=10] [page=FILE.html]", SEARCH, 3)
    k = number("k", options.get("k", "10"))
    group, pooling = options.get("group", "row"), options.get("pooling", "best")
    for key, value, choices in (("group", group, ("row", "person")), ("pooling", pooling, ("best", "mean"))):
        if value not in choices:
            raise FedReIDError(f"{key}={value}: give {' or '.join(choices)}")
    rerank = yes_or_no("rerank", options.get("rerank", "false"))
    model = load_model(run, options)
    gallery, pictures = _gallery(model, place, options)
    found = model.embed_files(_existing(query))
    name_damaged(found.damaged)
    if not len(found):
        raise FedReIDError(f"{query}: no picture can be read")
    answers = gallery.search(
        found.values,
        k,
        options.get("camera"),
        group,  # type: ignore[arg-type]
        pooling,  # type: ignore[arg-type]
        rerank,
        found.header,
    )
    _print(model, gallery, found, answers, rerank)
    if "page" in options:
        _write_page(
            Path(os.path.expanduser(options["page"])), model, found, Path(os.path.expanduser(query)), answers, pictures
        )
    return 0


def _gallery(model: ReIDModel, place: str, options: dict[str, str]) -> tuple[Gallery, Path | None]:
    """The gallery, and the folder that its pictures are in, if it is one."""
    from fedreid_pl.reporting.status import Status
    from fedreid_pl.retrieval.gallery import Gallery

    path = _existing(place)
    audit = options.get("audit")
    if path.is_file():
        if "save" in options:
            raise FedReIDError(f"save={options['save']}: {path} is a gallery's file already")
        return Gallery.load(path, audit=audit), None
    status = Status()
    gallery = Gallery(options.get("save"), audit=audit)
    if len(gallery):
        raise FedReIDError(f"save={options['save']}: exists; search it by its name, or give another one")
    gallery.add_pictures(model, path, progress=lambda done, all: status(f"{done} of {all}"))
    status.done()
    return gallery, path


def _existing(path: str) -> Path:
    found = Path(os.path.expanduser(path))
    if not found.exists():
        raise FedReIDError(f"{path}: no such file or folder")
    return found


def _print(model: ReIDModel, gallery: Gallery, found: Features, answers: list[list[Match]], rerank: bool) -> None:
    column = "distance" if rerank else "similarity"
    for name, matches in zip(found.names, answers, strict=True):
        print(f"{name}: {len(gallery)} rows of {len(gallery.persons())} persons searched")
        if not matches:
            print("  no row may be found")
            continue
        width = max(len("person"), *(len(match.person) for match in matches))
        cameras = max(len("camera"), *(len(match.camera) for match in matches))
        print(f"  {'':>3}  {column:>10}  {'person':<{width}}  {'camera':<{cameras}}  picture")
        for place, match in enumerate(matches, 1):
            score = -match.score if rerank else match.score
            print(f"  {place:>3}  {score:>10.4f}  {match.person:<{width}}  {match.camera:<{cameras}}  {match.source}")
        if model.threshold is not None and not rerank:
            known = matches[0].score >= model.threshold
            print(f"  threshold {model.threshold:.4f}: the person is {'' if known else 'probably not '}in the gallery")
    if model.threshold is None and not rerank:
        complain("note: no threshold is calibrated, so the best match may be somebody else; see docs/use.md")


def _write_page(
    page: Path, model: ReIDModel, found: Features, query: Path, answers: list[list[Match]], pictures: Path | None
) -> None:
    from fedreid_pl.retrieval.page import write_page

    if pictures is None:
        complain("note: a gallery's file holds no pictures; the page shows names alone")
    write_page(page, model.card, found.names, query, answers, pictures)
    print(f"page: {page}")
