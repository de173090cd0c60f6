"""Figures of docs/results.md as SVG: what each client gains, and the differences of methods to FedPav."""

from __future__ import annotations

import re
from collections.abc import Mapping

from fedreid_pl.comparison.study_results import StudyResults
from fedreid_pl.comparison.study_rows import MEAN
from fedreid_pl.functional.paired import Difference, family
from fedreid_pl.reporting.html.forest import VERDICTS, Interval, forest_chart
from fedreid_pl.reporting.html.style import STYLE

COLOURS = re.search(r"--ground:[^}]*", STYLE)  # the first are the light colours
RULES = "".join(
    [
        *re.findall(r"(?m)^(?:svg |\.grid|\.whisker|\.link|\.mark\{).*$", STYLE),
        *(rule for index in range(len(VERDICTS)) for rule in re.findall(rf"\.mark\.s{index}\{{[^}}]*\}}", STYLE)),
    ]
)


def figures(results: StudyResults, methods: tuple[str, ...]) -> dict[str, str]:
    """Returns the SVG of each figure by file name; without the figures that have no rows."""
    gains = {
        test: found
        for test in results.tests()
        if (found := results.difference(("fedpav", "local"), ("local", "local"), test))
    }
    gains = {test.removeprefix("mini-"): found for test, found in gains.items()}  # short labels
    others = {
        name: found for name in methods if (found := results.difference((name, "global"), ("fedpav", "global"), MEAN))
    }
    found = {
        "results-gain.svg": _chart(gains, "FedPav, local, less standalone (points)"),
        "results-methods.svg": _chart(others, "difference to FedPav (points)"),
    }
    return {name: svg for name, svg in found.items() if svg}


def _chart(differences: Mapping[str, Difference], axis: str) -> str:
    if not differences:
        return ""
    rows = {}
    for name, one in family(differences).items():
        ends = (None, None) if one.seeds == 1 else (one.low, one.high)
        rows[name] = Interval(one.mean, *ends, one.verdict)
    assert COLOURS is not None
    style = f"<style>svg{{background:#fff;{COLOURS[0]}}}{RULES}</style>"  # a dark page would hide dark ink
    svg = str(forest_chart(rows, axis, "synthetic data"))
    return re.sub(r"(<svg[^>]*>)", lambda found: found[1] + style, svg, count=1) + "\n"
