"""Parts of every chart: scales, ticks, axes, marks. A chart is text; colours come from the page's style by class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 360.0, 228.0
LEFT, RIGHT, TOP, BOTTOM = 40.0, 10.0, 10.0, 38.0
SERIES = 9
"""Colours, dashes and shapes that the style knows; a tenth series looks like the first and has another number."""

OUTLINES: dict[int, list[tuple[float, float]]] = {  # of the marks; the first is a circle
    1: [(-1, -1), (1, -1), (1, 1), (-1, 1)],  # square
    2: [(0, -1.2), (1.1, 0.9), (-1.1, 0.9)],  # triangle
    3: [(0, -1.35), (1.35, 0), (0, 1.35), (-1.35, 0)],  # diamond
    4: [(0, 1.2), (1.1, -0.9), (-1.1, -0.9)],  # triangle on its tip
    5: [
        *[(-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4), (1.2, 0.4), (0.4, 0.4)],
        *[(0.4, 1.2), (-0.4, 1.2), (-0.4, 0.4), (-1.2, 0.4), (-1.2, -0.4), (-0.4, -0.4)],
    ],  # plus
    6: [(-1.3, -0.5), (1.3, -0.5), (1.3, 0.5), (-1.3, 0.5)],  # bar
    7: [(-0.5, -1.3), (0.5, -1.3), (0.5, 1.3), (-0.5, 1.3)],  # upright bar
    8: [
        *[(-1.2, -0.7), (-0.7, -1.2), (0, -0.5), (0.7, -1.2), (1.2, -0.7), (0.5, 0)],
        *[(1.2, 0.7), (0.7, 1.2), (0, 0.5), (-0.7, 1.2), (-1.2, 0.7), (-0.5, 0)],
    ],  # cross
}
DASHES = ("", "7 3", "2 3", "8 3 2 3", "4 2", "12 3", "1 2", "6 2 1 2 1 2", "3 5")


class Scale(NamedTuple):
    """Linear: `low..high` of the data onto `start..end` of the picture."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The place of a value.

        >>> Scale(0, 10, 100, 0)(2.5)
        75.0
        """
        span = self.high - self.low
        return self.start + (self.end - self.start) * ((value - self.low) / span if span else 0.5)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten apart) from at or below `low` to at or above `high`.

    >>> ticks(3, 97), ticks(0, 0.4)
    ([0.0, 20.0, 40.0, 60.0, 80.0, 100.0], [0.0, 0.1, 0.2, 0.3, 0.4])
    """
    if not high > low:
        low, high = low - (abs(low) or 1.0) / 2, low + (abs(low) or 1.0) / 2
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def number(value: float) -> str:
    """A coordinate with at most one decimal.

    >>> number(12.0), number(3.14159)
    ('12', '3.1')
    """
    return f"{value:.1f}".removesuffix(".0")


def tick_text(value: float) -> str:
    """A tick's label.

    >>> tick_text(20.0), tick_text(0.25), tick_text(1200000.0)
    ('20', '0.25', '1.2e+06')
    """
    return f"{value:.6g}"


def points_of(x: Sequence[float], y: Sequence[float]) -> str:
    """A path through points."""
    return "M" + "L".join(f"{number(a)},{number(b)}" for a, b in zip(x, y, strict=True))


def text(x: float, y: float, content: str, anchor: str = "start", kind: str = "") -> str:
    """A line of text; `kind` is a class."""
    name = f' class="{kind}"' if kind else ""
    return f'<text x="{number(x)}" y="{number(y)}" text-anchor="{anchor}"{name}>{escape(content)}</text>'


def shorten(content: str, width: float, size: float = 7.2) -> str:
    """As much of a label's beginning and end as fits `width`, by the mean width of a letter.

    >>> shorten("mini-market1501-cam4", 116), shorten("mini-viper", 116)
    ('mini-mar…01-cam4', 'mini-viper')
    """
    most = max(3, int(width / size))
    head = most // 2
    return content if len(content) <= most else f"{content[:head]}…{content[len(content) - (most - 1 - head) :]}"


def axes(x: Scale, y: Scale, x_ticks: Sequence[float], y_ticks: Sequence[float], x_name: str, y_name: str) -> str:
    """Grid, tick labels and names of both axes."""
    parts = ['<g class="grid">']
    for value in y_ticks:
        at = number(y(value))
        parts.append(f'<line x1="{number(x.start)}" x2="{number(x.end)}" y1="{at}" y2="{at}"/>')
    parts.append("</g>")
    parts += [text(x.start - 5, y(value) + 3.5, tick_text(value), "end", "tick") for value in y_ticks]
    for value in x_ticks:
        if x.low - 1e-9 <= value <= x.high + 1e-9:
            parts.append(text(x(value), y.start + 14, tick_text(value), "middle", "tick"))
    parts.append(text((x.start + x.end) / 2, y.start + 29, x_name, "middle", "axis"))
    middle = (y.start + y.end) / 2
    parts.append(
        f'<text class="axis" text-anchor="middle" transform="translate(11 {number(middle)}) rotate(-90)">'
        f"{escape(y_name)}</text>"
    )
    return "".join(parts)


def marker(x: float, y: float, series: int, size: float = 3.6, title: str = "") -> str:
    """A mark whose shape and colour stand for a series."""
    a, b, s = x, y, size
    shape = series % SERIES
    name = f'class="mark s{shape}"'
    inside = f"<title>{escape(title)}</title>" if title else ""
    if shape == 0:
        return f'<circle {name} cx="{number(a)}" cy="{number(b)}" r="{number(s)}">{inside}</circle>'
    places = " ".join(f"{number(a + s * dx)},{number(b + s * dy)}" for dx, dy in OUTLINES[shape])
    return f'<polygon {name} points="{places}">{inside}</polygon>'


def picture(body: str, label: str, width: float = WIDTH, height: float = HEIGHT) -> str:
    """The chart as an element that is one image to a screen reader, with `label` as its text."""
    return (
        f'<svg role="img" aria-label="{escape(label, quote=True)}" viewBox="0 0 {number(width)} {number(height)}" '
        f'xmlns="http://www.w3.org/2000/svg">{body}</svg>'
    )


def swatch(series: int, kind: str = "line") -> str:
    """A series for a legend: its `line` with the mark, the `mark` alone, or the `fill` with its number."""
    shape = series % SERIES
    if kind == "mark":
        body = marker(8, 8, series, 4.6)
        return f'<svg class="swatch" viewBox="0 0 16 16" aria-hidden="true" width="16" height="16">{body}</svg>'
    if kind == "fill":
        body = f'<rect class="fill f{shape}" x="1" y="1" width="20" height="14"/>'
        body += text(11, 12, str(series + 1), "middle", f"on f{shape}")
        return f'<svg class="swatch" viewBox="0 0 22 16" aria-hidden="true" width="22" height="16">{body}</svg>'
    body = f'<path class="line s{shape}" stroke-dasharray="{DASHES[shape]}" d="M0,8L34,8"/>' + marker(17, 8, series)
    return f'<svg class="swatch" viewBox="0 0 34 16" aria-hidden="true" width="34" height="16">{body}</svg>'
