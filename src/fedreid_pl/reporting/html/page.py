"""The frame of the page: one file that asks no network for anything."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from fedreid_pl.reporting.html.elements import Section
from fedreid_pl.reporting.html.style import STYLE

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What a browser may load: nothing but the images and the style inside the file; no script runs."""


def page(title: str, head: str, sections: Iterable[Section]) -> str:
    """The whole document.

    Args:
        title: plain text.
        head: elements below the title, before the contents.
        sections: those without a body are left out.
    """
    shown = [section for section in sections if section.body]
    contents = "".join(f'<li><a href="#{section.key}">{escape(section.title)}</a></li>' for section in shown)
    body = "".join(section.to_html() for section in shown)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="referrer" content="no-referrer"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        '<a class="skip" href="#content">Skip to the content</a>'
        f'<header><h1>{escape(title)}</h1>{head}<nav aria-label="Contents"><ul>{contents}</ul></nav></header>'
        f'<main id="content">{body}</main></body></html>\n'
    )
