"""Draws the figures of runs for a paper and saves them as files."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from fedreid_pl.comparison.report import report_of
from fedreid_pl.errors import FedReIDError
from fedreid_pl.reporting.figures.plots import all_figures
from fedreid_pl.reporting.figures.style import check_matplotlib, drawing, save


def write_figures(folders: Sequence[Path], place: Path, columns: Collection[int] = (1, 2)) -> list[Path]:
    """Draws the figures of runs or comparisons as PNG and PDF and returns the paths of the files.

    Args:
        folders: folders of runs or comparisons.
        place: folder to save the files in.
        columns: widths of the figures in columns of a paper: 1, 2 or both. The names of wide figures end in `-wide`.

    Raises:
        FedReIDError: if matplotlib is missing, a folder is not a run folder, or no run has an evaluation yet.
    """
    if not (isinstance(columns, Collection) and columns and set(columns) <= {1, 2}):
        raise FedReIDError(f"columns={columns}: must be (1,), (2,) or (1, 2), the widths in columns of a paper")
    check_matplotlib()
    runs = report_of(folders)
    files: list[Path] = []
    with drawing() as matplotlib_figure:
        for number in columns:
            suffix = "" if number == 1 else "-wide"
            for name, drawn in all_figures(matplotlib_figure, runs.experiments, runs.standalone, number):
                files += save(drawn, place / f"{name}{suffix}")
    if not files:
        raise FedReIDError(f"{folders[0]}: nothing has been measured yet; train for a round first")
    return files
