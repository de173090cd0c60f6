"""Section: the gap between global model, local models and standalone training at every client."""

from __future__ import annotations

from markupsafe import Markup

from fedreid_pl.reporting.html.bars import row_chart
from fedreid_pl.reporting.html.elements import Sheet, data_table, legend, panels, paragraph
from fedreid_pl.reporting.html.sections.settings import cell
from fedreid_pl.reporting.html.svg import ticks
from fedreid_pl.reporting.records import Experiments, RunRecord
from fedreid_pl.reporting.views import gaps

KINDS = ("global", "local", "standalone")


def body(experiments: Experiments, standalone: RunRecord | None) -> Markup:
    """Returns one panel per federated experiment."""
    found = gaps(experiments, standalone)
    if not found:
        return Markup()
    kinds = [kind for kind in KINDS if any(kind in row for rows in found.values() for row in rows.values())]
    values = [bar.value for rows in found.values() for row in rows.values() for bar in row.values()]
    x_ticks = ticks(max(0.0, min(values) - 1), max(values), 5)
    charts = {label: row_chart(rows, kinds, "Rank-1 (%)", label, x_ticks) for label, rows in found.items()}
    lines = [
        [label, test, *(cell(row.get(kind)) for kind in kinds)]
        for label, rows in found.items()
        for test, row in rows.items()
    ]
    sheet = Sheet("Rank-1 (%) of the last evaluation", ["experiment", "test set", *kinds], lines, left=2)
    said = "Rank-1 of the last evaluation. Global: the server's model. Local: each client's model directly after the "
    said += "client's own training in that round."
    if "standalone" in kinds:
        said += " Standalone: models that each client trained alone, with the same seeds and splits."
    return paragraph(said) + legend(kinds, "mark") + panels(charts) + data_table(sheet)
