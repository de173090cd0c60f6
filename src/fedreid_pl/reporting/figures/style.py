"""Sizes, colours and marks of all figures, and how figures are saved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedreid_pl.errors import FedReIDError

COLUMNS = {1: 3.5, 2: 7.16}
"""Width in inches of one and of two columns in a two-column paper (IEEE; ACM's widths differ by less than 5 %)."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999", "#7A52A3")
"""The colours of Okabe and Ito, which colour-blind people can distinguish, and two further colours."""

DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.3)), (0, (5, 1.5, 1, 1.5)), (0, (3, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx", "----", "++++", "||||", "oo")

_SETTINGS: Any = {
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.8,
    "legend.frameon": False,
    "lines.linewidth": 1.1,
    "lines.markersize": 2.8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.4,
    "grid.color": "#d8d8d8",
    "hatch.linewidth": 0.4,
    "pdf.fonttype": 42,  # text stays text, as publishers require
    "savefig.dpi": 300,
    "figure.constrained_layout.use": True,
}


def check_matplotlib() -> None:
    """Checks that matplotlib is installed.

    Raises:
        FedReIDError: if matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise FedReIDError(
            "figure: needs matplotlib; install it with `pip install matplotlib` or `pip install 'fedreid-pl[figure]'`"
        ) from error


@contextmanager
def drawing() -> Iterator[Any]:
    """Yields the module `matplotlib.figure` with the settings for papers; does not use pyplot and opens no window."""
    import matplotlib
    from matplotlib import figure

    with matplotlib.rc_context(_SETTINGS):
        yield figure


def save(drawn: Any, path: Path) -> list[Path]:
    """Writes a figure as .png and .pdf; equal numbers give equal bytes.

    Args:
        drawn: matplotlib figure.
        path: path without suffix.

    Returns:
        The paths of both files.

    Raises:
        FedReIDError: if a file cannot be written.
    """
    written = []
    for ending, metadata in ((".png", {"Software": None}), (".pdf", {"CreationDate": None, "Producer": None})):
        target = path.with_name(path.name + ending)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            drawn.savefig(target, metadata=metadata)
        except OSError as error:
            raise FedReIDError(f"{target}: cannot be written ({error.strerror or error})") from error
        written.append(target)
    return written
