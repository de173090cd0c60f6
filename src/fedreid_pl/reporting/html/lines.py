"""Line charts over rounds or ranks, and weights stacked over rounds."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from markupsafe import Markup

from fedreid_pl.reporting.html.markup import element, joined
from fedreid_pl.reporting.html.svg import (
    BOTTOM,
    DASHES,
    HEIGHT,
    LEFT,
    RIGHT,
    SERIES,
    TOP,
    WIDTH,
    Scale,
    axes,
    marker,
    number,
    picture,
    points_of,
    text,
    ticks,
)
from fedreid_pl.reporting.views import Curve

MARKS = 8  # marks on a long curve; a short curve has a mark at every point
SHORT = 24
LAYER = 13.0  # smallest height of a layer that has room for its number


def line_chart(curves: Mapping[str, Curve], order: list[str], x_name: str, y_name: str, title: str) -> Markup:
    """Returns curves, with a band of one standard deviation if there are several seeds.

    Args:
        curves: curves by label.
        order: all labels of the figure; the place of a label determines colour, dash and mark.
        x_name, y_name: names of the axes.
        title: content of the panel, for the text alternative.
    """
    every_x = [value for curve in curves.values() for value in curve.x]
    lows, highs = [], []
    for curve in curves.values():
        spread = curve.deviation or [0.0] * len(curve.y)
        lows += [y - d for y, d in zip(curve.y, spread, strict=True)]
        highs += [max(y, min(y + d, 100.0)) for y, d in zip(curve.y, spread, strict=True)]  # no share is above 100 %
    y_ticks = _percent_ticks(min(lows), max(highs))
    x_ticks = [tick for tick in ticks(min(every_x), max(every_x), 6) if tick == int(tick)]
    low, high = min(every_x), max(every_x)
    x = Scale(low - (low == high), high + (low == high), LEFT, WIDTH - RIGHT)
    y = Scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    bands, lines, marks = [], [], []
    for label, curve in curves.items():
        series = order.index(label)
        shape = series % SERIES
        across = [x(value) for value in curve.x]
        if curve.deviation and len(curve.x) > 1:
            upper = [y(min(v + d, y.high)) for v, d in zip(curve.y, curve.deviation, strict=True)]
            lower = [y(max(v - d, y.low)) for v, d in zip(curve.y, curve.deviation, strict=True)]
            outline = points_of([*across, *reversed(across)], [*upper, *reversed(lower)])
            bands.append(element("path", class_=f"band f{shape}", d=f"{outline}Z"))
        up = [y(value) for value in curve.y]
        drawn = {"stroke_dasharray": DASHES[shape], "d": points_of(across, up)}
        lines.append(element("path", class_=f"line s{shape}", **drawn))
        for index in _marked(len(curve.x), series):
            deviation = f" ± {curve.deviation[index]:.1f}" if curve.deviation else ""
            tip = f"{label}: {curve.y[index]:.1f}{deviation} at {curve.x[index]:g}"
            marks.append(marker(across[index], up[index], series, title=tip))
    body = joined([axes(x, y, x_ticks, y_ticks, x_name, y_name), *bands, *lines, *marks])
    return picture(body, f"{y_name} over {x_name}, {title}. {_spoken(curves, x_name)}")


def stack_chart(curves: Mapping[str, Curve], order: list[str], x_name: str, y_name: str, title: str) -> Markup:
    """Returns stacked shares, the first at the bottom; a layer shows its number where the layer is thickest."""
    xs = next(iter(curves.values())).x
    total = [sum(curve.y[index] for curve in curves.values()) for index in range(len(xs))]
    y_ticks = ticks(0, max(total), 4)
    x = Scale(xs[0] - (len(xs) == 1), xs[-1] + (len(xs) == 1), LEFT, WIDTH - RIGHT)
    y = Scale(0, y_ticks[-1], HEIGHT - BOTTOM, TOP)
    if len(xs) == 1:  # a single round fills the whole width
        across, places = [x.start, x.end], [0, 0]
    else:
        across, places = [x(value) for value in xs], list(range(len(xs)))
    base = [0.0] * len(places)
    layers, numbers = [], []
    for label, curve in curves.items():
        series = order.index(label)
        top = [below + curve.y[place] for below, place in zip(base, places, strict=True)]
        outline = points_of([*across, *reversed(across)], [y(v) for v in [*top, *reversed(base)]])
        number_of = element("title", series + 1)
        layers.append(element("path", number_of, class_=f"fill f{series % SERIES}", d=f"{outline}Z"))
        inside = [i for i, at in enumerate(across) if x.start + 8 <= at <= x.end - 8] or [0]
        thickest = max(inside, key=lambda i: (round(top[i] - base[i], 3), -abs(across[i] - (x.start + x.end) / 2)))
        if (top[thickest] - base[thickest]) / y.high * (y.start - y.end) >= LAYER:
            middle = y((top[thickest] + base[thickest]) / 2) + 4
            numbers.append(text(across[thickest], middle, str(series + 1), "middle", f"on f{series % SERIES}"))
        base = top
    x_ticks = [tick for tick in ticks(xs[0], xs[-1], 6) if tick == int(tick)]
    body = joined([axes(x, y, x_ticks, y_ticks, x_name, y_name), *layers, *numbers])
    means = ", ".join(f"{label} {fmean(curve.y):.3f}" for label, curve in curves.items())
    return picture(body, f"{y_name} stacked over {x_name}, {title}. Means: {means}.")


def _percent_ticks(low: float, high: float) -> list[float]:
    found = ticks(max(0.0, low), high if high - low >= 5 else low + 5, 5)
    return [tick for tick in found if tick <= 100] if high <= 100 else found


def _marked(points: int, series: int) -> list[int]:
    if points <= SHORT:
        return list(range(points))
    step = points / MARKS
    return sorted({min(points - 1, int(step * (index + (series % SERIES) / SERIES))) for index in range(MARKS)})


def _spoken(curves: Mapping[str, Curve], x_name: str) -> str:
    """Returns the first and last value of every curve as text."""
    parts = []
    for label, curve in curves.items():
        parts.append(
            f"{label}: {curve.y[0]:.1f} at {x_name} {number(curve.x[0])}, {curve.y[-1]:.1f} at {number(curve.x[-1])}"
        )
    return "; ".join(parts) + "."
