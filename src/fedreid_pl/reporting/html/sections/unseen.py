"""Section: scores on the datasets of `data.leave_out`, which no client has."""

from __future__ import annotations

from markupsafe import Markup

from fedreid_pl.reporting.html.elements import Sheet, legend, panels, paragraph
from fedreid_pl.reporting.html.lines import line_chart
from fedreid_pl.reporting.html.markup import joined
from fedreid_pl.reporting.html.sections.settings import cell
from fedreid_pl.reporting.records import Experiments
from fedreid_pl.reporting.tables import UNSEEN
from fedreid_pl.reporting.views import Line, accuracy_curves, unseen_bars


def body(experiments: Experiments) -> Markup:
    """Returns Rank-1 over rounds, one panel per unseen test set, and Rank-1 and mAP of the last evaluation."""
    lines = [Line(label, runs, "unseen") for label, runs in experiments.items() if runs[0].history.names("unseen")]
    found = accuracy_curves(lines)
    if not found:
        return Markup()
    order = [line.label for line in lines]
    charts = {test: line_chart(curves, order, "round", "Rank-1 (%)", test) for test, curves in found.items()}
    rows = [[label, name, cell(rank1), cell(mean)] for label, name, rank1, mean in unseen_bars(experiments)]
    notes = [
        UNSEEN,
        "If a run has several models, the row TEST has their mean, and TEST by MODEL has one model's scores.",
    ]
    sheet = Sheet("Last round, unseen datasets (%)", ["experiment", "test set", "R1", "mAP"], rows, 2, notes)
    return joined([sheet.to_html(), legend(order), paragraph("Rank-1 at every evaluation."), panels(charts)])
