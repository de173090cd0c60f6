"""Section: cost of runs, as time by phase and traffic."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from fedreid_pl.reporting.html.bars import amount_chart
from fedreid_pl.reporting.html.elements import Sheet, data_table, legend, panels, paragraph
from fedreid_pl.reporting.records import Experiments
from fedreid_pl.reporting.views import costs

MEGABYTE = 10**6
PHASES = ("fit", "aggregate", "evaluate", "checkpoint", "other")


def body(experiments: Experiments) -> Markup:
    """Returns seconds by phase and megabytes by direction, one row per experiment."""
    seconds = costs(experiments, lambda cost: {phase: cost["seconds"].get(phase, 0.0) for phase in PHASES})
    sent = costs(experiments, _megabytes)
    if not seconds:
        return Markup()
    memory = costs(experiments, lambda cost: {"peak": cost.get("peak_memory_bytes", 0) / MEGABYTE})
    charts = {"Time": amount_chart(seconds, PHASES, "seconds", "time by phase") + legend(PHASES, "fill")}
    if any(sum(row.values()) for row in sent.values()):
        directions = ("to the clients", "to the server")
        chart = amount_chart(sent, directions, "megabytes", "sent over the run")
        charts["Communication"] = chart + legend(directions, "fill")
    header = ["experiment", *(f"{phase} (s)" for phase in PHASES), "total (s)", "down (MB)", "up (MB)", "memory (MB)"]
    rows = [
        [
            label,
            *(f"{seconds[label][phase]:,.1f}" for phase in PHASES),
            f"{sum(seconds[label].values()):,.1f}",
            *(f"{value:,.2f}" for value in sent[label].values()),
            f"{memory[label]['peak']:,.0f}",
        ]
        for label in seconds
    ]
    sheet = Sheet("Time, communication, memory", header, rows)
    said = (
        "Cost of the whole run, as a mean over seeds. Other programs on the same machine may have made the run slower. "
        "Down: from the server to the clients. Up: from the clients to the server. Memory: largest use of memory. "
        "1 MB is 10⁶ bytes."
    )
    return paragraph(said) + panels(charts) + data_table(sheet)


def _megabytes(cost: Mapping) -> dict[str, float]:
    return {
        "to the clients": cost.get("bytes_down", 0) / MEGABYTE,
        "to the server": cost.get("bytes_up", 0) / MEGABYTE,
    }
