"""The results of a search as one HTML file with images."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from fedreid_pl.data.decoding import open_rgb
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.storage import write_text
from fedreid_pl.reporting.html.elements import Section, paragraph
from fedreid_pl.reporting.html.markup import element
from fedreid_pl.reporting.html.page import page
from fedreid_pl.reporting.thumbnails import data_address
from fedreid_pl.retrieval.matching import Match, verdict
from fedreid_pl.retrieval.model import ModelCard

THUMBNAIL = (64, 128)  # largest width and height in pixels


def write_page(
    out: Path,
    card: ModelCard,
    queries: Sequence[str],
    query: Path,
    answers: Sequence[Sequence[Match]],
    gallery: Path | None,
    threshold: float | None = None,
    reranked: bool = False,
) -> None:
    """Writes a page with every query and its matches; thumbnails are embedded, without scripts or external requests.

    Args:
        out: the file.
        card: card of the model.
        queries: names of the queries, relative to `query` if that is a folder.
        query: the query image, or the folder of query images.
        answers: matches of every query, best first.
        gallery: folder with the sources of the matches; `None` shows no gallery images.
        threshold: similarity above which a person counts as found; `None` omits this decision.
        reranked: the scores are negative re-ranked distances; the page shows them as distances.

    Raises:
        FedReIDError: if the file cannot be written.
    """
    measure = "re-ranked distance, smaller is more alike" if reranked else "cosine similarity, larger is more alike"
    head = paragraph(
        f"Model: {card.experiment} on {card.data}{' (synthetic data)' if card.synthetic else ''}, {card.backbone}, "
        f"round {card.round}. The first picture of a row is the query, then come the most similar pictures of the "
        f"gallery with their {measure}. The best match may show another person."
    )
    sections = []
    for number, (name, matches) in enumerate(zip(queries, answers, strict=True)):
        said = paragraph(verdict(matches, threshold)) if threshold is not None else Markup()
        row = _row(query / name if query.is_dir() else query, matches, gallery, reranked)
        sections.append(Section(f"query-{number}", name, said + row))
    write_text(out, page("Search results", head, sections))


def _row(query: Path, matches: Sequence[Match], gallery: Path | None, reranked: bool) -> Markup:
    sign = -1 if reranked else 1
    shots = [
        element(
            "li",
            _image(gallery / match.source if gallery else None, _said(match, reranked)),
            element("b", str(rank)),
            f"{match.person} {sign * match.score:.3f}",
            class_="shot",
        )
        for rank, match in enumerate(matches, 1)
    ]
    asked = element("div", _image(query, "query"), element("b", "query"), class_="shot")
    return element("div", asked, element("ol", *shots), class_="ranked")


def _said(match: Match, reranked: bool) -> str:
    camera = f", camera {match.camera}" if match.camera else ""
    score = f"re-ranked distance {-match.score:.3f}" if reranked else f"similarity {match.score:.3f}"
    return f"{match.person}{camera}, {score}, {match.source}"


def _image(path: Path | None, name: str) -> Markup:
    """Returns an image element with a newly encoded thumbnail, or text if there is no readable image."""
    try:
        picture = open_rgb(str(path)) if path is not None else None
    except FedReIDError:  # removed or damaged since it was embedded
        picture = None
    if picture is None:
        return element("span", "no picture", title=name)
    picture.thumbnail(THUMBNAIL)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return element("img", alt=name, title=name, src=data_address(buffer.getvalue()))
