"""Implements `fedreid-pl figure`."""

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
        raise FedReIDError(f"{others[0]}: unknown word; write fedreid-pl figure FOLDER ... [columns=1|2] [out=FOLDER]")
    columns = options.get("columns", "1 2").replace(",", " ").split()
    if not columns or set(columns) - {"1", "2"}:
        raise FedReIDError(f"columns={options.get('columns')}: must be 1 or 2, the width in columns of the paper")
    from fedreid_pl.reporting.figures.style import check_matplotlib

    check_matplotlib()
    from fedreid_pl.comparison.figures import write_figures

    default = folders[0] / "figures" if len(folders) == 1 else Path("figures")
    place = Path(os.path.expanduser(options["out"])) if options.get("out") else default
    files = write_figures(folders, place, [int(column) for column in columns])
    print(f"{len(files)} files in {place}")
    return 0
