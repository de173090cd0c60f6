"""Section: accuracy over rounds by test set, as in the paper's Fig. 4."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from fedreid_pl.reporting.html.elements import Sheet, data_table, legend, panels, paragraph
from fedreid_pl.reporting.html.lines import line_chart
from fedreid_pl.reporting.records import Experiments, RunRecord
from fedreid_pl.reporting.views import Curve, Panels, accuracy_curves, lines_of

ROWS = 40
"""Largest number of places on the x axis, evenly spread, in the table of a chart."""


def body(experiments: Experiments, standalone: RunRecord | None) -> Markup:
    """Returns one panel per test set and one of their mean."""
    lines = lines_of(experiments, standalone)
    found = accuracy_curves(lines)
    if not found:
        return Markup()
    order = [line.label for line in lines]
    charts = {test: line_chart(curves, order, "round", "Rank-1 (%)", test) for test, curves in found.items()}
    whose = " of the server's model (without such a model: of the clients' models)" * (len(experiments) > 1)
    said = f"Rank-1{whose} at every evaluation. Round 0 is the network before training."
    if any(curve.deviation for curves in found.values() for curve in curves.values()):
        said += " The band shows one standard deviation over the runs of an experiment."
    sheet = curve_sheet("Rank-1 (%) over rounds", found, order, "test set", "round")
    return paragraph(said) + legend(order) + panels(charts) + data_table(sheet)


def curve_sheet(title: str, found: Panels, order: Sequence[str], panel: str, x_name: str, decimals: int = 1) -> Sheet:
    """Returns the numbers of line charts as a table, one row per panel and place on the x axis."""
    rows, thinned = [], False
    shown = [label for label in order if any(label in curves for curves in found.values())]
    for name, curves in found.items():
        places = sorted({x for curve in curves.values() for x in curve.x})
        kept = _spread(places, ROWS)
        thinned |= len(kept) < len(places)
        known = {label: dict(zip(curve.x, _cells(curve, decimals), strict=True)) for label, curve in curves.items()}
        rows += [[name, f"{x:g}", *(known.get(label, {}).get(x, "-") for label in shown)] for x in kept]
    file = "inspection.json" if x_name == "rank" else "metrics.csv"
    notes = [f"The table shows some {x_name}s only; {file} in each run's folder has all of them."] if thinned else []
    return Sheet(title, [panel, x_name, *shown], rows, left=2, notes=notes)


def _cells(curve: Curve, decimals: int) -> list[str]:
    if curve.deviation is None:
        return [f"{y:.{decimals}f}" for y in curve.y]
    return [f"{y:.{decimals}f} ± {d:.{decimals}f}" for y, d in zip(curve.y, curve.deviation, strict=True)]


def _spread(places: list[float], most: int) -> list[float]:
    """Returns at most `most` of the places, evenly spread, including the last one."""
    step = -(-len(places) // most)
    return places if step == 1 else sorted({*places[::step], places[-1]})
