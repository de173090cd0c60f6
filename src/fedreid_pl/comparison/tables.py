"""Tables with a mean and a deviation in every cell, as text, Markdown and tidy rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fedreid_pl.comparison.results import Cell
from fedreid_pl.reporting.escaping import csv_text, markdown
from fedreid_pl.reporting.tables import text_table


class Column(NamedTuple):
    """Heading of a column, name of its metric in the tidy rows, and format of its numbers."""

    name: str
    metric: str
    form: str = ".1f"


@dataclass
class Table:
    """A table of cells.

    Attributes:
        key: name in the tidy rows.
        title: title that describes the numbers.
        lead: headings of the text columns that name a row.
        columns: columns of numbers.
        rows: `(texts of the lead columns, one cell or None per column)`.
        notes: sentences below the table.
    """

    key: str
    title: str
    lead: tuple[str, ...]
    columns: list[Column]
    rows: list[tuple[tuple[str, ...], list[Cell | None]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, lead: str | tuple[str, ...], cells: Iterable[Cell | None]) -> None:
        """Appends a row if at least one of its cells has a value."""
        values = list(cells)
        if any(cell is not None for cell in values):
            self.rows.append(((lead,) if isinstance(lead, str) else lead, values))

    def body(self) -> tuple[list[str], list[list[str]]]:
        """Returns the header and the rows as text."""
        header = [*self.lead, *(column.name for column in self.columns)]
        rows = [
            [*lead, *(cell_text(cell, column.form) for cell, column in zip(cells, self.columns, strict=True))]
            for lead, cells in self.rows
        ]
        return header, rows

    def to_text(self) -> str:
        """Returns the table as plain text: title, aligned columns, notes."""
        return "\n".join(
            [self.title, "", text_table(*self.body(), left=len(self.lead)), *(["", *self.notes] if self.notes else [])]
        )

    def to_markdown(self) -> str:
        """Returns the table as a section of a Markdown file."""
        header, rows = self.body()
        rule = ["---"] * len(self.lead) + ["---:"] * len(self.columns)
        shown = [[markdown(cell) for cell in row] for row in (header, *rows)]
        lines = ["| " + " | ".join(row) + " |" for row in (shown[0], rule, *shown[1:])]
        return "\n".join([f"## {markdown(self.title)}", "", *lines, *(f"\n{markdown(note)}" for note in self.notes)])


def cell_text(cell: Cell | None, form: str = ".1f") -> str:
    """Returns a cell as text: mean and deviation, or `-` for a missing value.

    >>> cell_text(Cell(41.23, 0.56, 3)), cell_text(Cell(2.0, None, 1), "+.1f"), cell_text(None)
    ('41.2 ± 0.6', '+2.0', '-')
    """
    if cell is None:
        return "-"
    own = form.replace("+", "")
    return f"{cell.mean:{form}}" + ("" if cell.deviation is None else f" ± {cell.deviation:{own}}")


def tidy_csv(tables: Sequence[Table]) -> str:
    """Returns a CSV with one line per cell: `table,row,column,metric,mean,deviation,seeds`.

    The deviation is empty for a single seed. The number of seeds is empty for a figure that is quoted from a paper.
    """
    rows: list[list[Any]] = []
    for table in tables:
        for lead, cells in table.rows:
            for column, cell in zip(table.columns, cells, strict=True):
                if cell is not None:
                    deviation = "" if cell.deviation is None else f"{cell.deviation:.10g}"
                    numbers = (f"{cell.mean:.10g}", deviation, cell.seeds or "")
                    rows.append([table.key, ", ".join(lead), column.name, column.metric, *numbers])
    return csv_text(["table", "row", "column", "metric", *Cell._fields], rows)
