"""`fedreid-pl figure`."""

from __future__ import annotations

import os
from pathlib import Path

from fedreid_pl.commands.words import folders_of, take
from fedreid_pl.errors import FedReIDError


def figure(words: list[str]) -> int:
    """Draws the figures of runs for a paper, as PNG and PDF."""
    options, rest = take(words, "out", "columns")
    folders, others = folders_of(rest, "figure")
    if others:
        raise FedReIDError(f"{others[0]}: is not taken; figure FOLDER ... [columns=1|2] [out=FOLDER]")
    columns = options.get("columns", "1 2").replace(",", " ").split()
    if not columns or set(columns) - {"1", "2"}:
        raise FedReIDError(f"columns={options.get('columns')}: the width in columns of the paper, 1 or 2")
    from fedreid_pl.reporting.figures.style import check_matplotlib

    check_matplotlib()
    from fedreid_pl.comparison.report import report_of
    from fedreid_pl.reporting.figures.plots import all_figures
    from fedreid_pl.reporting.figures.style import drawing, save

    runs = report_of(folders)
    default = folders[0] / "figures" if len(folders) == 1 else Path("figures")
    place = Path(os.path.expanduser(options["out"])) if options.get("out") else default
    count = 0
    with drawing() as matplotlib_figure:
        for number in columns:
            suffix = "" if number == "1" else "-wide"
            for name, drawn in all_figures(matplotlib_figure, runs.experiments, runs.standalone, int(number)):
                count += len(save(drawn, place / f"{name}{suffix}"))
    if not count:
        raise FedReIDError(f"{folders[0]}: nothing has been measured yet; train for a round first")
    print(f"{count} files in {place}")
    return 0
