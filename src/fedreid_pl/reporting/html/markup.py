"""The only module that writes markup: it builds an element from name, attributes and children, never from a string.

`element` escapes every attribute and every child that is not an element itself, so names and numbers from a run's
files can only become text. The names of elements and attributes come from fixed lists that allow no code and no
requests: no script, frame, form or event handler. A link leads inside the page, and a picture is embedded in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from markupsafe import Markup, escape

from fedreid_pl.errors import visible

_ELEMENTS = """
    a b br caption code dd details div dl dt figcaption figure h1 h2 h3 header img li main nav ol p pre section span
    summary table tbody td th thead tr ul
    svg g line text path circle polygon rect title
"""
ELEMENTS = frozenset(_ELEMENTS.split())
VOID = frozenset(("br", "img"))
DRAWN = frozenset(("line", "path", "circle", "polygon", "rect"))
"""Elements of a chart that are self-closing if they are empty."""
_ATTRIBUTES = """
    alt aria-hidden aria-label class cx cy d height href id open points r role scope src stroke-dasharray tabindex
    text-anchor title transform viewBox width x x1 x2 xmlns y y1 y2
"""
ATTRIBUTES = frozenset(_ATTRIBUTES.split())
SOURCE = re.compile(r"data:image/jpeg;base64,[A-Za-z0-9+/]*={0,2}")
LINK = re.compile(r"#[\w-]+")


def element(name: str, *children: Any, **attributes: Any) -> Markup:
    """Returns an element. A trailing underscore of an attribute's name is removed, other underscores become hyphens.

    Args:
        name: one of `ELEMENTS`.
        children: elements, which are not escaped; everything else is text. `None` and `False` are omitted.
        attributes: values by name, one of `ATTRIBUTES` each. `None` and `False` omit the attribute, `True` sets it
            without a value.

    Raises:
        ValueError: for another element or attribute, a link out of the page, or a picture that is not embedded.

    >>> print(element("p", "a < b ", element("b", 3), class_="note"))
    <p class="note">a &lt; b <b>3</b></p>
    """
    if name not in ELEMENTS:
        raise ValueError(f"<{name}> is not an allowed element of a report")
    inside = joined(children)
    start = f"<{name}{''.join(_attribute(key, value) for key, value in attributes.items())}"
    if name in VOID:
        return Markup(start + ">")
    if name in DRAWN and not inside:
        return Markup(start + "/>")
    return Markup(f"{start}>{inside}</{name}>")


def joined(parts: Iterable[Any]) -> Markup:
    """Returns elements and texts one after another; texts are escaped.

    >>> print(joined(["<", element("br"), None]))
    &lt;<br>
    """
    return Markup("".join(_safe(part) for part in parts if part is not None and part is not False))


def document(title: str, policy: str, style: str, body: Markup) -> str:
    """Returns the whole file; `policy` and `style` are fixed texts of the program."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="referrer" content="no-referrer"><link rel="icon" href="data:,">'
        f"<title>{_safe(title)}</title><style>{style}</style></head><body>{_safe(body)}</body></html>\n"
    )


def _safe(value: Any) -> str:
    return str(value) if isinstance(value, Markup) else str(escape(visible(str(value), but="\n\t")))


def _attribute(key: str, value: Any) -> str:
    name = key.removesuffix("_").replace("_", "-") if key != "viewBox" else key
    if name not in ATTRIBUTES:
        raise ValueError(f"{name} is not an allowed attribute of a report")
    if value is None or value is False:
        return ""
    if value is True:
        return f" {name}"
    if name == "src" and not SOURCE.fullmatch(str(value)):
        raise ValueError("a picture of a report must be embedded as data:image/jpeg")
    if name == "href" and not LINK.fullmatch(str(value)):
        raise ValueError("a link of a report must lead inside the page (#NAME)")
    return f' {name}="{_safe(str(value))}"'
