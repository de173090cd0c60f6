"""Elements of the page: tables, figures with their legend and table, sections."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from fedreid_pl.reporting.html.svg import swatch


@dataclass
class Sheet:
    """A table: a caption, headings, and rows of text, the first `left` columns of which name the row.

    >>> Sheet("Rank-1", ["client", "last"], [["mini-viper", "41.5"]]).to_html().partition("<tbody>")[2]
    '<tr><th scope="row">mini-viper</th><td>41.5</td></tr></tbody></table></div>'
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    notes: Sequence[str] = field(default_factory=list)

    def to_html(self, caption: bool = True) -> str:
        """A table in a box that scrolls sideways where the screen is narrow, by keyboard as well."""
        kinds = [' class="name"'] * self.left + [""] * len(self.header)
        columns = zip(self.header, kinds, strict=False)
        head = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in columns)
        body = "".join(f"<tr>{self._cells(row)}</tr>" for row in self.rows)
        said = f'<p class="title">{escape(self.title)}</p>' if caption else ""
        name = escape(self.title, quote=True)
        notes = "".join(f'<p class="note">{escape(note)}</p>' for note in self.notes)
        return (
            f'{said}<div class="scroll" tabindex="0" role="region" aria-label="{name}">'
            f'<table aria-label="{name}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{notes}'
        )

    def _cells(self, row: Sequence[str]) -> str:
        named = "".join(f'<th scope="row">{escape(cell)}</th>' for cell in row[: self.left])
        return named + "".join(f"<td>{escape(cell)}</td>" for cell in row[self.left :])


@dataclass
class Section:
    """A part of the page with a heading that the contents link to; one without a body is left out."""

    key: str
    title: str
    body: str

    def to_html(self) -> str:
        """The section's element."""
        return f'<section id="{self.key}"><h2>{escape(self.title)}</h2>{self.body}</section>'


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def legend(labels: Iterable[str], kind: str = "line", shown: Container[str] | None = None) -> str:
    """What colour, dash, mark or number stand for; `shown`: those of the labels that are in the charts."""
    items = "".join(
        f"<li>{swatch(index, kind)}<span>{escape(label)}</span></li>"
        for index, label in enumerate(labels)
        if shown is None or label in shown
    )
    return f'<ul class="legend">{items}</ul>'


def panels(charts: Mapping[str, str]) -> str:
    """Charts side by side as far as there is room, each below its name."""
    figures = "".join(
        f"<figure><figcaption>{escape(name)}</figcaption>{chart}</figure>" for name, chart in charts.items()
    )
    return f'<div class="panels">{figures}</div>'


def folded(summary: str, body: str, kind: str = "", opened: bool = False) -> str:
    """A part that is opened and closed by a click or the keyboard."""
    name = f' class="{kind}"' * bool(kind) + " open" * opened
    return f"<details{name}><summary>{escape(summary)}</summary>{body}</details>"


def data_table(sheet: Sheet) -> str:
    """The numbers of a chart, folded."""
    return folded(f"Table: {sheet.title}", sheet.to_html(caption=False), "data")
