"""Aggregation weights over rounds."""

from __future__ import annotations

from markupsafe import Markup

from fedreid_pl.reporting.html.elements import data_table, legend, panels, paragraph
from fedreid_pl.reporting.html.lines import stack_chart
from fedreid_pl.reporting.html.sections.accuracy import curve_sheet
from fedreid_pl.reporting.records import Experiments
from fedreid_pl.reporting.views import weight_curves


def body(experiments: Experiments) -> Markup:
    """One panel per experiment with a layer per client."""
    found = weight_curves(experiments)
    if not found:
        return Markup()
    order = list(dict.fromkeys(client for curves in found.values() for client in curves))
    charts = {label: stack_chart(curves, order, "round", "weight", label) for label, curves in found.items()}
    sheet = curve_sheet("Aggregation weights over rounds", found, order, "experiment", "round", 3)
    said = "How much each client's update counts in the average; the numbers in the layers are those of the legend."
    return paragraph(said) + legend(order, "fill") + panels(charts) + data_table(sheet)
