"""Bar charts: bars over settings, rows of points per test set, and rows of stacked amounts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from fedreid_pl.reporting.html.markup import element, joined
from fedreid_pl.reporting.html.svg import (
    BOTTOM,
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
    shorten,
    text,
    tick_text,
    ticks,
)
from fedreid_pl.reporting.views import Bar

ROW = 24.0
LABELS = 134.0  # width of the names to the left of rows


def bar_chart(bars: Mapping[str, Bar], order: Sequence[str], y_name: str, title: str) -> Markup:
    """Returns vertical bars from zero with their values; several seeds add a whisker of one standard deviation."""
    highest = max(bar.value + (bar.deviation or 0) for bar in bars.values())
    y_ticks = ticks(0, max(highest, 1e-9), 5)
    y = Scale(0, y_ticks[-1], HEIGHT - BOTTOM, TOP + 10)
    x = Scale(0, len(bars), LEFT, WIDTH - RIGHT)
    parts = [axes(x, y, [], y_ticks, "", y_name)]
    width = (x.end - x.start) / len(bars) * 0.56
    for index, (label, bar) in enumerate(bars.items()):
        middle, top = x(index + 0.5), y(bar.value)
        shape = list(order).index(label) % SERIES
        parts.append(
            element(
                "rect",
                class_=f"fill f{shape}",
                x=number(middle - width / 2),
                y=number(top),
                width=number(width),
                height=number(y.start - top),
            )
        )
        if bar.deviation is not None:
            low, high = number(y(max(0.0, bar.value - bar.deviation))), number(y(bar.value + bar.deviation))
            parts.append(element("path", class_="whisker", d=f"M{number(middle)},{low}L{number(middle)},{high}"))
        above = y(bar.value + (bar.deviation or 0)) - 4
        parts.append(text(middle, above, f"{bar.value:.1f}", "middle", "tick"))
        parts.append(text(middle, y.start + 15, shorten(label, (x.end - x.start) / len(bars)), "middle", "tick"))
    spoken = "; ".join(f"{label}: {_told(bar)}" for label, bar in bars.items())
    return picture(joined(parts), f"{y_name}, {title}. {spoken}.")


def row_chart(
    rows: Mapping[str, Mapping[str, Bar]], order: Sequence[str], x_name: str, title: str, x_ticks: Sequence[float]
) -> Markup:
    """Returns one row per test set with a mark for each kind of model, joined by a line; all panels share the ticks."""
    height = TOP + ROW * len(rows) + BOTTOM
    x = Scale(x_ticks[0], x_ticks[-1], LABELS, WIDTH - RIGHT - 6)
    parts = [
        upright_grid(x, x_ticks, TOP, height - BOTTOM),
        text((x.start + x.end) / 2, height - 8, x_name, "middle", "axis"),
    ]
    for index, (name, row) in enumerate(rows.items()):
        at = TOP + ROW * (index + 0.5)
        places = [x(bar.value) for bar in row.values()]
        parts.append(text(LABELS - 9, at + 4, shorten(name, LABELS - 9), "end", "label"))
        link = f"M{number(min(places))},{number(at)}L{number(max(places))},{number(at)}"
        parts.append(element("path", class_="link", d=link))
        for kind, bar in row.items():
            parts.append(marker(x(bar.value), at, list(order).index(kind), 4.6, f"{name}, {kind}: {_told(bar)}"))
    spoken = "; ".join(
        f"{name}: " + ", ".join(f"{kind} {bar.value:.1f}" for kind, bar in row.items()) for name, row in rows.items()
    )
    return picture(joined(parts), f"{x_name}, {title}. {spoken}.", height=height)


def amount_chart(rows: Mapping[str, Mapping[str, float]], order: Sequence[str], x_name: str, title: str) -> Markup:
    """Returns one row per experiment with stacked parts; each part shows its number if there is room."""
    height = TOP + 26 * len(rows) + BOTTOM
    longest = max(sum(parts.values()) for parts in rows.values())
    x_ticks = ticks(0, longest or 1.0, 4)
    x = Scale(0, x_ticks[-1], LABELS, WIDTH - RIGHT - 8)
    parts = [
        upright_grid(x, x_ticks, TOP, height - BOTTOM),
        text((x.start + x.end) / 2, height - 8, x_name, "middle", "axis"),
    ]
    for index, (name, amounts) in enumerate(rows.items()):
        at, done = TOP + 26 * index + 4, 0.0
        parts.append(text(LABELS - 9, at + 13, shorten(name, LABELS - 9), "end", "label"))
        for part, amount in amounts.items():
            left, right = x(done), x(done + amount)
            series = list(order).index(part)
            parts.append(
                element(
                    "rect",
                    element("title", f"{part}: {amount:,.1f}"),
                    class_=f"fill f{series % SERIES}",
                    x=number(left),
                    y=number(at),
                    width=number(right - left),
                    height=18,
                )
            )
            if right - left > 14:
                middle = (left + right) / 2
                parts.append(text(middle, at + 13, str(series + 1), "middle", f"on f{series % SERIES}"))
            done += amount
    spoken = "; ".join(
        f"{name}: " + ", ".join(f"{part} {amount:,.1f}" for part, amount in amounts.items())
        for name, amounts in rows.items()
    )
    return picture(joined(parts), f"{x_name}, {title}. {spoken}.", height=height)


def upright_grid(x: Scale, x_ticks: Sequence[float], top: float, bottom: float) -> Markup:
    """Returns vertical lines at the ticks, with their labels below."""
    places = [number(x(tick)) for tick in x_ticks]
    lines = [element("line", x1=at, x2=at, y1=number(top), y2=number(bottom)) for at in places]
    labels = [text(x(tick), bottom + 14, tick_text(tick), "middle", "tick") for tick in x_ticks]
    return joined([element("g", *lines, class_="grid"), *labels])


def _told(bar: Bar) -> str:
    return f"{bar.value:.1f}" + ("" if bar.deviation is None else f" ± {bar.deviation:.1f}")
