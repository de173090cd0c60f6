"""The layers that write HTML, Markdown and CSV write every value as plain text, never as markup or a formula."""

from __future__ import annotations

import csv
import io
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from fedreid_pl.comparison.results import Cell
from fedreid_pl.comparison.tables import Column, Table, tidy_csv
from fedreid_pl.errors import visible
from fedreid_pl.reporting.escaping import csv_text, harmless
from fedreid_pl.reporting.html.markup import ATTRIBUTES, ELEMENTS, element, joined

HOSTILE = (
    "<script>x</script>",
    "<img src=x onerror=y>",
    "[a](http://b.example) ![p](http://c.example)",
    "http://d.example www.e.example",
    "a | b | `c` *d* __e__ ~~f~~",
    "&lt;b&gt; <!-- x -->",
    "\\<b>\\",
)
NEVER = "script iframe object embed form style link meta base use animate foreignObject"
FORMULAS = ("=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\N{FULLWIDTH EQUALS SIGN}1")


class Seen(HTMLParser):
    """Collects tags, attributes and text of a document."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.names: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.names += [name for name, _ in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=40))
def test_any_text_is_text_in_an_element(text: str) -> None:
    seen = Seen(element("p", text, element("b", text), title=text, class_=text))
    assert seen.tags == ["p", "b"] and seen.names == ["title", "class"]
    assert seen.text == 2 * visible(text, but="\n\t")


@pytest.mark.parametrize("name", NEVER.split())
def test_elements_that_run_or_load_code_are_refused(name: str) -> None:
    assert name not in ELEMENTS
    with pytest.raises(ValueError, match="is not an allowed element of a report"):
        element(name)


@pytest.mark.parametrize(
    "attributes",
    [
        {"onerror": "x"},
        {"style": "x"},
        {"srcset": "x"},
        {"src": "http://a.example"},
        {"src": "data:image/svg+xml;base64,AA"},
        {"src": "data:image/jpeg;base64,AA' x='"},
        {"href": "javascript:x"},
        {"href": "http://a.example"},
    ],
)
def test_attributes_that_run_or_load_code_are_refused(attributes: dict[str, str]) -> None:
    assert not [name for name in ATTRIBUTES if name.startswith("on")]
    with pytest.raises(ValueError, match=r"is not an allowed attribute of a report|of a report must"):
        element("img", **attributes)


def test_only_elements_are_not_escaped() -> None:
    assert joined(["<b>", element("b", "x"), None, 3]) == Markup("&lt;b&gt;<b>x</b>3")


def table_of(names: tuple[str, ...]) -> Table:
    table = Table("table3", f"Table {names[0]}", ("models",), [Column(names[0], "rank1_last")], notes=[names[0]])
    for name in names:
        table.add(name, [Cell(-1.5, None, 1)])
    return table


def test_names_are_text_in_markdown() -> None:
    """Renders with an independent program that accepts raw HTML, links and tables."""
    markdown = pytest.importorskip("markdown")
    for name in HOSTILE:
        seen = Seen(markdown.markdown(table_of((name, "fedpav_rw")).to_markdown(), extensions=["tables"]))
        assert set(seen.tags) <= {"h2", "p", "table", "thead", "tbody", "tr", "th", "td"}, name
        assert "fedpav_rw" in seen.text
        for part in ("script", "onerror", "d.example", "c.example"):
            assert (part in seen.text) == (part in name)


def test_no_cell_is_a_formula() -> None:
    rows = list(csv.reader(io.StringIO(tidy_csv([table_of(FORMULAS)]))))
    for row, name in zip(rows[1:], FORMULAS, strict=True):
        assert row[1].startswith("'") and row[2].startswith("'"), name
        assert float(row[4]) == -1.5, "numbers stay numbers"
    assert harmless("fedpav+batch_size=8") == "fedpav+batch_size=8"
    assert csv_text(["a"], [['x,"y\nz']]) == 'a\n"x,""y\ufffdz"\n'
