"""Escapes text for Markdown and CSV files; every value passes through these functions."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

from fedreid_pl.errors import visible

FORMULA = tuple("=+-@\t\r\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}\N{FULLWIDTH HYPHEN-MINUS}")
"""First characters of cells that a spreadsheet would compute."""
_MARKS = re.compile(r"[\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_])")
_START = re.compile(r"^(\s*)([#>+=-]|\d+[.)])")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def markdown(text: str) -> str:
    r"""Returns text that Markdown shows unchanged: without markup, HTML or links.

    >>> markdown("fedpav_rw"), markdown("<b>|[x](http://a)")
    ('fedpav_rw', '&lt;b&gt;\\|\\[x\\](http&#58;//a)')
    """
    plain = _MARKS.sub(lambda match: "\\" + match[0], visible(text))
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    plain = plain.replace("://", "&#58;//").replace("www.", "www&#46;")
    return _START.sub(lambda match: f"{match[1]}\\{match[2]}" if match[2] in "#>+=-" else match[0], plain)


def harmless(cell: Any) -> Any:
    """Returns a cell that spreadsheets do not compute: text that looks like a formula gets an apostrophe in front.

    >>> harmless("=1+1"), harmless("fedpav"), harmless("-0.5"), harmless(-0.5)
    ("'=1+1", 'fedpav', '-0.5', -0.5)
    """
    if not isinstance(cell, str):
        return cell
    text = visible(cell)
    return f"'{text}" if cell.startswith(FORMULA) and not _NUMBER.fullmatch(text) else text


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Returns the content of a CSV file; all cells are made `harmless`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([harmless(cell) for cell in header])
    writer.writerows([harmless(cell) for cell in row] for row in rows)
    return text.getvalue()
