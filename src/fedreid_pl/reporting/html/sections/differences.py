"""Forest plots of the differences to the baseline; their table is among those of the comparison."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from fedreid_pl.reporting.html.elements import legend, panels, paragraph
from fedreid_pl.reporting.html.forest import VERDICTS, Interval, forest_chart
from fedreid_pl.reporting.html.markup import joined


def body(forests: Mapping[str, Mapping[str, Mapping[str, Interval]]]) -> Markup:
    """For every table of differences its panels, one per measure; empty without any table."""
    found = {title: measures for title, measures in forests.items() if measures}
    if not found:
        return Markup()
    said = (
        "Mean paired difference over seeds with its 95 % bootstrap interval. 'Cannot tell': the interval holds zero, "
        "or Holm's correction over the experiments takes the finding back. A fluctuation is better if it is smaller."
    )
    parts = [paragraph(said), legend(VERDICTS, "mark")]
    for title, measures in found.items():
        charts = {name: forest_chart(rows, "difference (points)", name) for name, rows in measures.items()}
        parts += [paragraph(title, "title"), panels(charts)]
    return joined(parts)
