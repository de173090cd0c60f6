"""Frame of the page: one file without network requests."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup

from fedreid_pl.reporting.html.elements import Section
from fedreid_pl.reporting.html.markup import document, element, joined
from fedreid_pl.reporting.html.style import STYLE

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Lets a browser load only the images and the style inside the file; no script runs.

This is a second protection: `markup.element` already writes nothing that could run or load.
"""


def page(title: str, head: Markup, sections: Iterable[Section]) -> str:
    """Returns the whole document.

    Args:
        title: title in plain text.
        head: elements between the title and the contents.
        sections: sections; those without a body are not shown.
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
