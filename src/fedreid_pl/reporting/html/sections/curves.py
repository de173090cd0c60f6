"""Section: CMC curves by test set."""

from __future__ import annotations

from markupsafe import Markup

from fedreid_pl.reporting.html.elements import data_table, legend, panels, paragraph
from fedreid_pl.reporting.html.lines import line_chart
from fedreid_pl.reporting.html.sections.accuracy import curve_sheet
from fedreid_pl.reporting.inspection import shows_images
from fedreid_pl.reporting.records import Experiments, RunRecord
from fedreid_pl.reporting.views import cmc_curves, lines_of


def body(experiments: Experiments, standalone: RunRecord | None) -> Markup:
    """Returns one panel per test set, for runs with an inspection.json."""
    lines = lines_of(experiments, standalone)
    runs = [run for line in lines for run in line.runs]
    found = cmc_curves(lines)
    lacking = [run for run in runs if run.inspection is None and run.complete]
    hint = Markup()
    if lacking:
        run = lacking[0]
        more = f" and {len(lacking) - 1} more" * (len(lacking) > 1)
        command = f"fedreid-pl report RUN_FOLDER report.images={str(shows_images(run.config)).lower()}"
        name = f"{run.config.name}, seed {run.config.seed}{more}"
        hint = paragraph(
            f"There are no CMC curves for {name}. This command computes them from the last checkpoint: {command}",
            "note",
        )
    if not found:
        return hint
    order = [line.label for line in lines]
    charts = {test: line_chart(curves, order, "rank", "matched (%)", test) for test, curves in found.items()}
    sheet = curve_sheet("Queries matched (%) up to a rank", found, order, "test set", "rank")
    said = "Share of queries with at least one correct gallery image up to each rank, in the last round."
    return (
        paragraph(said)
        + legend(order, shown={label for curves in found.values() for label in curves})
        + panels(charts)
        + data_table(sheet)
        + hint
    )
