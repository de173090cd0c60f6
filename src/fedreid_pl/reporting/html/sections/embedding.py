"""Section: query features in two dimensions, before and after federation."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from fedreid_pl.reporting.html.elements import Sheet, data_table, legend, panels, paragraph
from fedreid_pl.reporting.html.markup import element, joined
from fedreid_pl.reporting.html.scatter import Point, scatter_chart
from fedreid_pl.reporting.records import Experiments

STAGES = {"before": "before: the initial network", "after": "after the last round"}


def body(experiments: Experiments) -> Markup:
    """Returns both plots for the first run of every experiment that has them."""
    parts = []
    for label, runs in experiments.items():
        found = next((run.inspection["embedding"] for run in runs if run.inspection), None)
        if found:
            parts.append(_experiment(label if len(experiments) > 1 else "", found))
    return joined(parts)


def _experiment(label: str, found: dict[str, Any]) -> Markup:
    order = list(dict.fromkeys(point["test"] for point in found["points"]))
    charts, rows = {}, []
    for stage, name in STAGES.items():
        points: dict[str, list[Point]] = {}
        for point in found["points"]:
            x, y = point[stage]
            points.setdefault(point["test"], []).append(Point(x, y, f"identity {point['identity']}"))
        share = found["explained"][stage]
        held = f", {100 * share:.0f} % of the variance" if share is not None else ""
        said = f"{found['method']} of {len(found['points'])} query features, {name}{held}"
        charts[f"{name[0].upper()}{name[1:]}"] = scatter_chart(points, order, said)
    for point in found["points"]:
        numbers = [f"{value:.3f}" for stage in STAGES for value in point[stage]]
        rows.append([point["test"], str(point["identity"]), str(point["camera"]), *numbers])
    header = ["test set", "identity", "camera", "before x", "before y", "after x", "after y"]
    whose = "the server's model" if found["model"] == "global" else "each client's own model"
    said = (
        f"{found['method']} of the features of {len(found['points'])} queries, computed with {whose}. Colour and shape "
        "show the test set; thin lines connect images of the same person."
    )
    if found["method"] == "PCA":
        shares = ", ".join(f"{stage} {100 * found['explained'][stage]:.0f} %" for stage in STAGES)
        said += f" Share of the variance that the plots show: {shares}."
    heading = element("h3", label) if label else Markup()
    sheet = Sheet(f"Coordinates of the queries{' of ' + label if label else ''}", header, rows, left=3)
    return heading + paragraph(said) + legend(order, "mark") + panels(charts) + data_table(sheet)
