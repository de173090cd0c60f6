"""Scatter plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from fedreid_pl.reporting.html.markup import element, joined
from fedreid_pl.reporting.html.svg import SERIES, Scale, marker, number, picture

SIDE, EDGE = 360.0, 12.0


class Point(NamedTuple):
    """A point and its group; a line joins the points of a group."""

    x: float
    y: float
    group: str


def scatter_chart(points: Mapping[str, Sequence[Point]], order: Sequence[str], title: str) -> Markup:
    """Returns marks by series; thin lines join the points of a group in their order. Both axes have the same unit.

    Args:
        points: points by series.
        order: all series; the place of a series determines colour and shape.
        title: text alternative.
    """
    every = [point for row in points.values() for point in row]
    xs, ys = [point.x for point in every], [point.y for point in every]
    span = max(max(xs) - min(xs), max(ys) - min(ys)) or 1.0
    left, low = (max(xs) + min(xs) - span) / 2, (max(ys) + min(ys) - span) / 2
    x = Scale(left, left + span, EDGE, SIDE - EDGE)
    y = Scale(low, low + span, SIDE - EDGE, EDGE)
    threads, marks = [], []
    for label, row in points.items():
        series = list(order).index(label)
        groups: dict[str, list[Point]] = {}
        for point in row:
            groups.setdefault(point.group, []).append(point)
        for group, members in groups.items():
            if len(members) > 1:
                path = "L".join(f"{number(x(p.x))},{number(y(p.y))}" for p in members)
                threads.append(element("path", class_=f"thread s{series % SERIES}", d=f"M{path}"))
            marks += [marker(x(p.x), y(p.y), series, 3.0, f"{label}, {group}") for p in members]
    frame = element("rect", class_="frame", x=1, y=1, width=number(SIDE - 2), height=number(SIDE - 2))
    return picture(joined([frame, *threads, *marks]), title, SIDE, SIDE)
