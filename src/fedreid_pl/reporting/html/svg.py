"""Parts of all charts: scales, ticks, axes, marks. The page's style sets the colours by class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from fedreid_pl.reporting.html.markup import element, joined

WIDTH, HEIGHT = 360.0, 228.0
LEFT, RIGHT, TOP, BOTTOM = 40.0, 10.0, 10.0, 38.0
SERIES = 9
"""Number of colours, dashes and shapes; a tenth series looks like the first but has another number."""

OUTLINES: dict[int, list[tuple[float, float]]] = {  # outlines of the marks; mark 0 is a circle
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
    """Linear scale that maps `low..high` of the data to `start..end` of the picture."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Returns the coordinate of a value.

        >>> Scale(0, 10, 100, 0)(2.5)
        75.0
        """
        span = self.high - self.low
        return self.start + (self.end - self.start) * ((value - self.low) / span if span else 0.5)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Returns about `count` round numbers from at most `low` to at least `high`, for the ticks of an axis.

    Their distance is 1, 2 or 5 times a power of ten.

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
    """Returns a coordinate with at most one decimal.

    >>> number(12.0), number(3.14159)
    ('12', '3.1')
    """
    return f"{value:.1f}".removesuffix(".0")


def tick_text(value: float) -> str:
    """Returns the label of a tick.

    >>> tick_text(20.0), tick_text(0.25), tick_text(1200000.0)
    ('20', '0.25', '1.2e+06')
    """
    return f"{value:.6g}"


def points_of(x: Sequence[float], y: Sequence[float]) -> str:
    """Returns an SVG path through points."""
    return "M" + "L".join(f"{number(a)},{number(b)}" for a, b in zip(x, y, strict=True))


def text(x: float, y: float, content: str, anchor: str = "start", kind: str = "") -> Markup:
    """Returns a line of text; `kind` is its class."""
    return element("text", content, x=number(x), y=number(y), text_anchor=anchor, class_=kind or None)


def shorten(content: str, width: float, size: float = 7.2) -> str:
    """Returns a label that fits `width`, by the mean width of a letter; a long label loses its middle.

    >>> shorten("mini-market1501-cam4", 116), shorten("mini-viper", 116)
    ('mini-mar…01-cam4', 'mini-viper')
    """
    most = max(3, int(width / size))
    head = most // 2
    return content if len(content) <= most else f"{content[:head]}…{content[len(content) - (most - 1 - head) :]}"


def axes(x: Scale, y: Scale, x_ticks: Sequence[float], y_ticks: Sequence[float], x_name: str, y_name: str) -> Markup:
    """Returns grid, tick labels and names of both axes."""
    heights = [number(y(value)) for value in y_ticks]
    lines = [element("line", x1=number(x.start), x2=number(x.end), y1=at, y2=at) for at in heights]
    parts = [element("g", *lines, class_="grid")]
    parts += [text(x.start - 5, y(value) + 3.5, tick_text(value), "end", "tick") for value in y_ticks]
    for value in x_ticks:
        if x.low - 1e-9 <= value <= x.high + 1e-9:
            parts.append(text(x(value), y.start + 14, tick_text(value), "middle", "tick"))
    parts.append(text((x.start + x.end) / 2, y.start + 29, x_name, "middle", "axis"))
    middle = (y.start + y.end) / 2
    turned = f"translate(11 {number(middle)}) rotate(-90)"
    parts.append(element("text", y_name, class_="axis", text_anchor="middle", transform=turned))
    return joined(parts)


def marker(x: float, y: float, series: int, size: float = 3.6, title: str = "") -> Markup:
    """Returns a mark whose shape and colour stand for a series."""
    a, b, s = x, y, size
    shape = series % SERIES
    inside = element("title", title) if title else None
    if shape == 0:
        return element("circle", inside, class_="mark s0", cx=number(a), cy=number(b), r=number(s))
    places = " ".join(f"{number(a + s * dx)},{number(b + s * dy)}" for dx, dy in OUTLINES[shape])
    return element("polygon", inside, class_=f"mark s{shape}", points=places)


def picture(body: Markup, label: str, width: float = WIDTH, height: float = HEIGHT) -> Markup:
    """Returns the chart as one element; screen readers read `label` as its text."""
    box = f"0 0 {number(width)} {number(height)}"
    return element("svg", body, role="img", aria_label=label, viewBox=box, xmlns="http://www.w3.org/2000/svg")


def swatch(series: int, kind: str = "line") -> Markup:
    """Returns the sample of a series in a legend: its `line` with mark, its `mark`, or its `fill` with number."""
    shape = series % SERIES
    if kind == "mark":
        return _swatch(16, marker(8, 8, series, 4.6))
    if kind == "fill":
        body = element("rect", class_=f"fill f{shape}", x=1, y=1, width=20, height=14)
        return _swatch(22, body, text(11, 12, str(series + 1), "middle", f"on f{shape}"))
    body = element("path", class_=f"line s{shape}", stroke_dasharray=DASHES[shape], d="M0,8L34,8")
    return _swatch(34, body, marker(17, 8, series))


def _swatch(width: int, *parts: Any) -> Markup:
    box = f"0 0 {width} 16"
    return element("svg", *parts, class_="swatch", viewBox=box, aria_hidden="true", width=width, height=16)
