"""Section: aggregation weights over rounds."""

from __future__ import annotations

from markupsafe import Markup

from fedreid_pl.reporting.html.elements import data_table, legend, panels, paragraph
from fedreid_pl.reporting.html.lines import stack_chart
from fedreid_pl.reporting.html.sections.accuracy import curve_sheet
from fedreid_pl.reporting.records import Experiments
from fedreid_pl.reporting.views import distance_curves, weight_curves


def body(experiments: Experiments) -> Markup:
    """Returns a panel per experiment with a layer per client, and panels of cosine distances if they were measured."""
    found = weight_curves(experiments)
    if not found:
        return Markup()
    distances = distance_curves(experiments)
    shown = found | distances
    order = list(dict.fromkeys(client for curves in shown.values() for client in curves))
    y_names = dict.fromkeys(found, "weight") | dict.fromkeys(distances, "share of the distances")
    charts = {label: stack_chart(curves, order, "round", y_names[label], label) for label, curves in shown.items()}
    sheet = curve_sheet("Aggregation weights over rounds", shown, order, "experiment", "round", 3)
    said = "Weight of each client's update in the average. The numbers in the layers refer to the legend."
    if distances:
        said += (
            " The panels of distances show each client's share of the sum of all cosine distances, measured in two"
            " ways: as the paper defines the distance, and with BatchNorm's running statistics from before training,"
            " so that only the change of the parameters counts."
        )
    return paragraph(said) + legend(order, "fill") + panels(charts) + data_table(sheet)
