"""Section: sweeps of the batch size and of local epochs, as in the paper's Fig. 2."""

from __future__ import annotations

from markupsafe import Markup

from fedreid_pl.reporting.html.bars import bar_chart
from fedreid_pl.reporting.html.elements import Sheet, data_table, panels, paragraph
from fedreid_pl.reporting.html.markup import joined
from fedreid_pl.reporting.records import Experiments
from fedreid_pl.reporting.views import Bar, sweeps


def body(experiments: Experiments) -> Markup:
    """Returns bars by test set, for every experiment with several batch sizes or numbers of local epochs."""
    found = sweeps(experiments)
    parts, rows = [], []
    for name, tests in found.items():
        order = list(dict.fromkeys(setting for bars in tests.values() for setting in bars))
        title = f"{name}: " if len(found) > 1 else ""
        parts.append(
            panels({f"{title}{test}": bar_chart(bars, order, "Rank-1 (%)", test) for test, bars in tests.items()})
        )
        rows += [[name, test, setting, cell(bar)] for test, bars in tests.items() for setting, bar in bars.items()]
    if not parts:
        return Markup()
    sheet = Sheet("Rank-1 (%) by setting", ["experiment", "test set", "setting", "Rank-1"], rows, left=3)
    said = "Rank-1 of the last evaluation. B: images per step. E: epochs per round. Whiskers: one standard deviation."
    return paragraph(said) + joined(parts) + data_table(sheet)


def cell(bar: Bar | None) -> str:
    """Returns the number of a bar for a table, `-` for `None`."""
    if bar is None:
        return "-"
    return f"{bar.value:.1f}" + ("" if bar.deviation is None else f" ± {bar.deviation:.1f}")
