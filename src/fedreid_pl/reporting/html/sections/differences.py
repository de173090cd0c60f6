"""Section: forest plots of the differences to the baseline; the tables of the comparison have the numbers."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from fedreid_pl.reporting.html.elements import legend, panels, paragraph
from fedreid_pl.reporting.html.forest import VERDICTS, Interval, forest_chart
from fedreid_pl.reporting.html.markup import joined


def body(forests: Mapping[str, Mapping[str, Mapping[str, Interval]]]) -> Markup:
    """Returns the panels of every table of differences, one per measure; empty without such tables."""
    found = {title: measures for title, measures in forests.items() if measures}
    if not found:
        return Markup()
    said = (
        "Each mark is a mean paired difference to the baseline, and the line is its 95 % bootstrap interval. 'Cannot "
        "tell' means that the interval contains zero, or that the difference is not significant after Holm's "
        "correction over the experiments. For fluctuation, smaller is better."
    )
    parts = [paragraph(said), legend(VERDICTS, "mark")]
    for title, measures in found.items():
        charts = {name: forest_chart(rows, "difference (points)", name) for name, rows in measures.items()}
        parts += [paragraph(title, "title"), panels(charts)]
    return joined(parts)
