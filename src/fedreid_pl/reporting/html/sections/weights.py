"""Aggregation weights over rounds."""

from __future__ import annotations

from markupsafe import Markup

from fedreid_pl.reporting.html.elements import data_table, legend, panels, paragraph
from fedreid_pl.reporting.html.lines import stack_chart
from fedreid_pl.reporting.html.sections.accuracy import curve_sheet
from fedreid_pl.reporting.records import Experiments
from fedreid_pl.reporting.views import distance_curves, weight_curves


def body(experiments: Experiments) -> Markup:
    """One panel per experiment with a layer per client; two more where cosine distances were measured."""
    found = weight_curves(experiments)
    if not found:
        return Markup()
    distances = distance_curves(experiments)
    shown = found | distances
    order = list(dict.fromkeys(client for curves in shown.values() for client in curves))
    charts = {label: stack_chart(curves, order, "round", "weight", label) for label, curves in shown.items()}
    sheet = curve_sheet("Aggregation weights over rounds", shown, order, "experiment", "round", 3)
    said = "How much each client's update counts in the average; the numbers in the layers are those of the legend."
    if distances:
        said += (
            " The panels of distances show each client's share of the cosine distances: measured as the paper defines"
            " them, and with BatchNorm's running statistics as they were before training, which leaves what the"
            " parameters alone moved."
        )
    return paragraph(said) + legend(order, "fill") + panels(charts) + data_table(sheet)
