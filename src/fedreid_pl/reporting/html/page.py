"""The frame of the page: one file that asks no network for anything."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup

from fedreid_pl.reporting.html.elements import Section
from fedreid_pl.reporting.html.markup import document, element, joined
from fedreid_pl.reporting.html.style import STYLE

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""What a browser may load: nothing but the images and the style inside the file; no script runs.

It is the second line of defence: `markup.element` writes nothing that could run or load.
"""


def page(title: str, head: Markup, sections: Iterable[Section]) -> str:
    """The whole document.

    Args:
        title: plain text.
        head: elements below the title, before the contents.
        sections: those without a body are left out.
    """
    shown = [section for section in sections if section.body]
    links = [element("li", element("a", section.title, href=f"#{section.key}")) for section in shown]
    contents = element("nav", element("ul", *links), aria_label="Contents")
    body = joined(
        [
            element("a", "Skip to the content", class_="skip", href="#content"),
            element("header", element("h1", title), head, contents),
            element("main", *(section.to_html() for section in shown), id="content"),
        ]
    )
    return document(title, POLICY, STYLE, body)
