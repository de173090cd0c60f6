"""Elements of the page: tables, figures with legend and table, sections."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from fedreid_pl.reporting.html.markup import element, joined
from fedreid_pl.reporting.html.svg import swatch


@dataclass
class Sheet:
    """A table with a caption, headings, and rows of text; the first `left` columns name the row.

    >>> str(Sheet("Rank-1", ["client", "last"], [["mini-viper", "41.5"]]).to_html()).partition("<tbody>")[2]
    '<tr><th scope="row">mini-viper</th><td>41.5</td></tr></tbody></table></div>'
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    notes: Sequence[str] = field(default_factory=list)

    def to_html(self, caption: bool = True) -> Markup:
        """Returns the table in a box that scrolls sideways on a narrow screen, also by keyboard."""
        kinds = ["name"] * self.left + [None] * len(self.header)
        columns = zip(self.header, kinds, strict=False)
        head = [element("th", name, scope="col", class_=kind) for name, kind in columns]
        rows = [element("tr", *self._cells(row)) for row in self.rows]
        table = element("table", element("thead", element("tr", *head)), element("tbody", *rows), aria_label=self.title)
        box = element("div", table, class_="scroll", tabindex="0", role="region", aria_label=self.title)
        said = paragraph(self.title, "title") if caption else None
        return joined([said, box, *(paragraph(note, "note") for note in self.notes)])

    def _cells(self, row: Sequence[str]) -> list[Markup]:
        named = [element("th", cell, scope="row") for cell in row[: self.left]]
        return named + [element("td", cell) for cell in row[self.left :]]


@dataclass
class Section:
    """A part of the page with a heading and an entry in the contents; a section without a body is not shown."""

    key: str
    title: str
    body: Markup

    def to_html(self) -> Markup:
        """Returns the element of the section."""
        return element("section", element("h2", self.title), self.body, id=self.key)


def paragraph(text: str, kind: str = "") -> Markup:
    """Returns a paragraph of plain text."""
    return element("p", text, class_=kind or None)


def legend(labels: Iterable[str], kind: str = "line", shown: Container[str] | None = None) -> Markup:
    """Returns a legend of colours, dashes, marks or numbers; `shown` limits it to labels that the charts contain."""
    items = [
        element("li", swatch(index, kind), element("span", label))
        for index, label in enumerate(labels)
        if shown is None or label in shown
    ]
    return element("ul", *items, class_="legend")


def panels(charts: Mapping[str, Markup]) -> Markup:
    """Returns charts side by side, as many as there is room for, each below its name."""
    figures = [element("figure", element("figcaption", name), chart) for name, chart in charts.items()]
    return element("div", *figures, class_="panels")


def folded(summary: str, body: Markup, kind: str = "", opened: bool = False) -> Markup:
    """Returns a part that a click or the keyboard opens and closes."""
    return element("details", element("summary", summary), body, class_=kind or None, open=opened)


def data_table(sheet: Sheet) -> Markup:
    """Returns the numbers of a chart as a collapsed table."""
    return folded(f"Table: {sheet.title}", sheet.to_html(caption=False), "data")
