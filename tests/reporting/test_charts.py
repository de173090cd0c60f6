"""Charts are parsed as XML, and the drawn values are read back with the axis ticks."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from fedreid_pl.reporting.html.bars import amount_chart, bar_chart, row_chart
from fedreid_pl.reporting.html.lines import line_chart, stack_chart
from fedreid_pl.reporting.html.scatter import Point, scatter_chart
from fedreid_pl.reporting.html.svg import SERIES, marker, swatch, ticks
from fedreid_pl.reporting.views import Bar, Curve

NS = "{http://www.w3.org/2000/svg}"


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def numbers(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+),(-?[\d.]+)", path)]


def axis(root: ElementTree.Element, upright: bool) -> tuple[float, float]:
    """Returns (units per pixel, value at pixel 0) of an axis, from its first and last tick label."""
    anchor = "end" if upright else "middle"
    found = [t for t in root.iter(f"{NS}text") if t.get("class") == "tick" and t.get("text-anchor") == anchor]
    places = [(float(t.get("y" if upright else "x", 0)) - (3.5 if upright else 0), float(t.text or 0)) for t in found]
    (first, low), (last, high) = places[0], places[-1]
    slope = (high - low) / (last - first)
    return slope, low - slope * first


def elements(root: ElementTree.Element, name: str, kind: str) -> list[ElementTree.Element]:
    return [item for item in root.iter(f"{NS}{name}") if kind in (item.get("class") or "").split()]


def test_a_line_goes_through_its_values() -> None:
    curves = {"b": Curve([0, 10, 20, 30], [3.0, 40.0, 41.5, 88.0]), "c": Curve([10, 30], [20.0, 30.0])}
    root = parsed(line_chart(curves, ["a", "b", "c"], "round", "Rank-1 (%)", "viper"))
    (dx, x0), (dy, y0) = axis(root, False), axis(root, True)
    for series, curve in ((1, curves["b"]), (2, curves["c"])):
        (line,) = elements(root, "path", f"s{series}")
        drawn = numbers(line.get("d", ""))
        assert [dx * x + x0 for x, _ in drawn] == pytest.approx(curve.x, abs=0.1)
        assert [dy * y + y0 for _, y in drawn] == pytest.approx(curve.y, abs=0.1)
    assert "viper" in root.get("aria-label", "") and "b: 3.0 at round 0, 88.0 at 30" in root.get("aria-label", "")


def test_a_band_spans_one_deviation_to_both_sides_and_ends_at_100() -> None:
    curve = Curve([1, 2, 3], [50.0, 60.0, 98.0], [5.0, 10.0, 9.0])
    root = parsed(line_chart({"a": curve}, ["a"], "round", "Rank-1 (%)", "viper"))
    dy, y0 = axis(root, True)
    (band,) = elements(root, "path", "band")
    values = [dy * y + y0 for _, y in numbers(band.get("d", ""))]
    assert values == pytest.approx([55, 70, 100, 89, 50, 45], abs=0.2)


@pytest.mark.parametrize("points", [1, 2, 24, 300])
def test_marks_are_few_on_a_long_curve_and_lie_on_it(points: int) -> None:
    curve = Curve([float(x) for x in range(points)], [float(x % 7) for x in range(points)])
    root = parsed(line_chart({"a": curve}, ["a"], "round", "Rank-1 (%)", "viper"))
    (line,) = elements(root, "path", "line")
    drawn = set(numbers(line.get("d", "")))
    marks = [(float(m.get("cx", 0)), float(m.get("cy", 0))) for m in elements(root, "circle", "mark")]
    assert len(marks) == (points if points <= 24 else 8) and set(marks) <= drawn


def test_layers_of_a_stack_have_the_height_of_their_values() -> None:
    curves = {"x": Curve([1, 2], [0.25, 0.5]), "y": Curve([1, 2], [0.75, 0.5])}
    root = parsed(stack_chart(curves, ["x", "y"], "round", "weight", "fedpav"))
    dy, y0 = axis(root, True)
    base = [0.0, 0.0]
    for series, curve in enumerate(curves.values()):
        (layer,) = elements(root, "path", f"f{series}")
        values = [dy * y + y0 for _, y in numbers(layer.get("d", ""))]
        top, bottom = values[:2], values[:1:-1]
        assert bottom == pytest.approx(base, abs=0.01)
        assert [t - b for t, b in zip(top, bottom, strict=True)] == pytest.approx(curve.y, abs=0.01)
        base = top
    assert [item.text for item in elements(root, "text", "on")] == ["1", "2"], "numbers of the legend"


def test_a_single_round_fills_the_width_of_the_chart() -> None:
    root = parsed(stack_chart({"x": Curve([1], [1.0])}, ["x"], "round", "weight", "fedpav"))
    (layer,) = elements(root, "path", "fill")
    assert len({x for x, _ in numbers(layer.get("d", ""))}) == 2


def test_bars_start_at_zero_and_whiskers_span_two_deviations() -> None:
    root = parsed(bar_chart({"B=8": Bar(20.0, 4.0, 3), "B=16": Bar(60.0)}, ["B=8", "B=16"], "Rank-1 (%)", "viper"))
    dy, y0 = axis(root, True)
    heights = [-dy * float(bar.get("height", 0)) for bar in elements(root, "rect", "fill")]
    assert heights == pytest.approx([20, 60], abs=0.1)
    (whisker,) = elements(root, "path", "whisker")
    assert [dy * y + y0 for _, y in numbers(whisker.get("d", ""))] == pytest.approx([16, 24], abs=0.1)


def test_marks_of_a_row_stand_at_their_values() -> None:
    rows = {"viper": {"global": Bar(10.0), "standalone": Bar(40.0)}}
    root = parsed(row_chart(rows, ["global", "local", "standalone"], "Rank-1 (%)", "fedpav", ticks(0, 40)))
    dx, x0 = axis(root, False)
    (link,) = elements(root, "path", "link")
    assert [dx * x + x0 for x, _ in numbers(link.get("d", ""))] == pytest.approx([10, 40], abs=0.1)
    (circle,) = elements(root, "circle", "mark")
    assert dx * float(circle.get("cx", 0)) + x0 == pytest.approx(10, abs=0.1)


def test_amounts_are_stacked_without_gaps() -> None:
    root = parsed(amount_chart({"fedpav": {"fit": 30.0, "other": 10.0}}, ["fit", "other"], "seconds", "time"))
    dx, _ = axis(root, False)
    first, second = elements(root, "rect", "fill")
    assert dx * float(first.get("width", 0)) == pytest.approx(30, abs=0.3)
    end = float(first.get("x", 0)) + float(first.get("width", 0))
    assert end == pytest.approx(float(second.get("x", 0)), abs=0.11)


def test_points_keep_their_distances_and_lines_join_only_points_of_a_group() -> None:
    points = {"viper": [Point(0, 0, "identity 1"), Point(3, 4, "identity 1"), Point(10, 0, "identity 2")]}
    root = parsed(scatter_chart(points, ["viper"], "PCA"))
    places = [(float(m.get("cx", 0)), float(m.get("cy", 0))) for m in elements(root, "circle", "mark")]
    near, far = (abs(complex(*places[0]) - complex(*places[index])) for index in (1, 2))
    assert near / far == pytest.approx(0.5, abs=0.01)
    assert len(elements(root, "path", "thread")) == 1


def test_every_series_has_a_distinct_shape() -> None:
    shapes = {re.sub(r"s\d", "", marker(0, 0, series)) for series in range(SERIES)}
    assert len(shapes) == SERIES
    for kind in ("line", "mark", "fill"):
        assert len({swatch(series, kind) for series in range(SERIES)}) == SERIES


@pytest.mark.parametrize("label", ['<script>alert("x")</script>', "a & b", 'quo"te', "ä→ü"])
def test_names_are_plain_text(label: str) -> None:
    curve = Curve([1, 2], [1.0, 2.0])
    root = parsed(line_chart({label: curve}, [label], "round", "Rank-1 (%)", label))
    assert label in root.get("aria-label", "")
    assert {item.tag for item in root.iter()} <= {
        f"{NS}{n}" for n in ("svg", "g", "line", "text", "path", "circle", "title")
    }


@pytest.mark.parametrize(("low", "high"), [(0, 0), (5, 5), (0, 1e-9), (-3, 4), (99.2, 99.9), (0, 123456)])
def test_ticks_cover_the_range_in_equal_steps(low: float, high: float) -> None:
    found = ticks(low, high)
    assert found[0] <= low and found[-1] >= high and 2 <= len(found) <= 12
    steps = [b - a for a, b in pairwise(found)]
    assert steps == pytest.approx([steps[0]] * len(steps))
