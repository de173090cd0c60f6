"""Figures of docs/results.md as SVG: what each client gains, and the differences of methods to FedPav."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from results_differences import FEDERATED, KINDS, STANDALONE, cells_judged, tests_judged

from fedreid_pl.comparison.study_results import StudyResults
from fedreid_pl.functional.paired import Difference
from fedreid_pl.reporting.html.forest import Interval, forest_chart
from fedreid_pl.reporting.html.style import CHARTS, LIGHT


def figures(results: StudyResults, methods: Sequence[str]) -> dict[str, str]:
    """Returns the SVG of each figure by file name, with the verdicts of the tables. Without rows there is no figure."""
    gains = tests_judged(results, FEDERATED, STANDALONE)
    gains = {test.removeprefix("mini-"): one for test, one in gains.items()}  # short labels
    others = {name: one for (name, kind), one in cells_judged(results, methods).items() if kind == KINDS[0]}
    found = {
        "results-gain.svg": _forest(gains, "FedPav, local, less standalone (points)"),
        "results-methods.svg": _forest(others, "difference to FedPav (points)"),
    }
    return {name: svg for name, svg in found.items() if svg}


def _forest(differences: Mapping[str, Difference], axis: str) -> str:
    """Returns the SVG of differences by label, with their verdicts; an empty text without differences."""
    if not differences:
        return ""
    rows = {}
    for name, one in differences.items():
        ends = (None, None) if one.seeds == 1 else (one.low, one.high)
        rows[name] = Interval(one.mean, *ends, one.verdict)
    style = f"<style>svg{{background:#fff;{LIGHT}}}{CHARTS}</style>"  # a dark page would hide dark ink
    svg = str(forest_chart(rows, axis, "synthetic data"))
    return re.sub(r"(<svg[^>]*>)", lambda found: found[1] + style, svg, count=1) + "\n"
