"""Forest plot: one row per experiment, with the mean difference to a baseline as a mark on its interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from markupsafe import Markup

from fedreid_pl.reporting.html.bars import LABELS, ROW, upright_grid
from fedreid_pl.reporting.html.markup import element, joined
from fedreid_pl.reporting.html.svg import (
    BOTTOM,
    RIGHT,
    TOP,
    WIDTH,
    Scale,
    marker,
    number,
    picture,
    shorten,
    text,
    ticks,
)

VERDICTS = ("better", "worse", "cannot tell")
"""Verdicts; the place in this list selects the mark."""


class Interval(NamedTuple):
    """A mean difference, the ends of its interval (`None` for a single seed), and its verdict."""

    mean: float
    low: float | None
    high: float | None
    verdict: str

    @property
    def spoken(self) -> str:
        """Numbers and verdict as text.

        >>> Interval(1.0, -0.5, 2.5, "cannot tell").spoken
        '+1.0 (-0.5 to +2.5), cannot tell'
        """
        ends = "" if self.low is None or self.high is None else f" ({self.low:+.1f} to {self.high:+.1f})"
        return f"{self.mean:+.1f}{ends}, {self.verdict}"


def forest_chart(rows: Mapping[str, Interval], x_name: str, title: str) -> Markup:
    """Returns one row per experiment: a line over the interval, a mark at the mean, and a vertical line at zero.

    Args:
        rows: intervals by experiment, at least one.
        x_name: name of the axis with its unit.
        title: title of the chart, for screen readers.
    """
    ends = [value for row in rows.values() for value in (row.mean, row.low, row.high) if value is not None]
    x_ticks = ticks(min(0.0, *ends), max(0.0, *ends), 5)
    height = TOP + ROW * len(rows) + BOTTOM
    bottom = height - BOTTOM
    x = Scale(x_ticks[0], x_ticks[-1], LABELS, WIDTH - RIGHT - 6)
    zero = number(x(0.0))
    parts = [
        upright_grid(x, x_ticks, TOP, bottom),
        element("path", class_="link", d=f"M{zero},{number(TOP)}L{zero},{number(bottom)}"),
        text((x.start + x.end) / 2, height - 8, x_name, "middle", "axis"),
    ]
    for index, (name, row) in enumerate(rows.items()):
        at = TOP + ROW * (index + 0.5)
        parts.append(text(LABELS - 9, at + 4, shorten(name, LABELS - 9), "end", "label"))
        if row.low is not None and row.high is not None:
            low, high = number(x(row.low)), number(x(row.high))
            parts.append(element("path", class_="whisker", d=f"M{low},{number(at)}L{high},{number(at)}"))
        parts.append(marker(x(row.mean), at, VERDICTS.index(row.verdict), 4.6, f"{name}: {row.spoken}"))
    spoken = "; ".join(f"{name}: {row.spoken}" for name, row in rows.items())
    return picture(joined(parts), f"{x_name}, {title}. {spoken}.", height=height)
