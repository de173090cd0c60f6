"""Draws the figures for papers: accuracy and CMC curves, sweeps, weights, the gap between models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from fedreid_pl.reporting.figures.style import COLOURS, COLUMNS, DASHES, HATCHES, MARKERS
from fedreid_pl.reporting.records import Experiments, RunRecord
from fedreid_pl.reporting.views import (
    Bar,
    Curve,
    accuracy_curves,
    cmc_curves,
    distance_curves,
    gaps,
    lines_of,
    sweeps,
    weight_curves,
)

Draw = Callable[[Any, Any], None]
"""Draws the content of one panel into matplotlib axes."""

Drawing = tuple[str, Any]
"""Name of the file without suffix, and the matplotlib figure."""


def all_figures(figure: Any, experiments: Experiments, standalone: RunRecord | None, columns: int) -> list[Drawing]:
    """Returns every figure for which the runs have data.

    Args:
        figure: module `matplotlib.figure`.
        experiments: runs by experiment.
        standalone: the `local` run for comparison, if there is a single run.
        columns: width of the figures in columns of a paper, 1 or 2.
    """
    lines = lines_of(experiments, standalone)
    order = [line.label for line in lines]
    synthetic = any(run.config.data.synthetic for line in lines for run in line.runs)
    drawn: list[Drawing] = []

    def add(
        name: str,
        panels: Mapping[str, Any],
        draw: Draw,
        names: Sequence[str],
        height: float = 1.35,
        shared: bool = False,
    ) -> None:
        if panels:
            drawn.append((name, _grid(figure, panels, draw, names, columns, height, synthetic, shared)))

    accuracy, cmc, weights = (
        accuracy_curves(lines),
        cmc_curves(lines),
        weight_curves(experiments) | distance_curves(experiments),
    )
    add("accuracy", accuracy, partial(_lines, order=order, x_name="round", y_name="Rank-1 (%)"), order)
    add("cmc", cmc, partial(_lines, order=order, x_name="rank", y_name="matched (%)"), order)
    clients = list(dict.fromkeys(client for curves in weights.values() for client in curves))
    add("weights", weights, partial(_stack, order=clients), clients)
    found = gaps(experiments, standalone)
    present = {kind for tests in found.values() for row in tests.values() for kind in row}
    kinds = [kind for kind in ("global", "local", "standalone") if kind in present]
    tall = 0.45 + 0.17 * max(map(len, found.values()), default=0)
    alike = len({tuple(rows) for rows in found.values()}) == 1  # all panels of a row share the list of test sets
    add("gap", found, partial(_rows, kinds=kinds), kinds, tall, shared=alike)
    for name, tests in sweeps(experiments).items():
        settings = list(dict.fromkeys(setting for bars in tests.values() for setting in bars))
        add(f"settings-{name}", {name: tests}, partial(_bars, settings=settings), settings, 1.7)
    return drawn


def _grid(
    figure: Any,
    panels: Mapping[str, Any],
    draw: Draw,
    names: Sequence[str],
    columns: int,
    height: float,
    synthetic: bool,
    shared: bool,
) -> Any:
    """Returns a figure of panels with one legend above, and a note below if the data are synthetic."""
    across = min(len(panels), {1: 2, 2: 5 if len(panels) > 8 else 4}[columns])
    rows = -(-len(panels) // across)
    legend_columns = 3 if columns == 1 else 6
    drawn = figure.Figure(figsize=(COLUMNS[columns], rows * height + 0.35 + 0.13 * -(-len(names) // legend_columns)))
    grid = drawn.subplots(rows, across, squeeze=False, sharex=shared, sharey=shared)
    handles: dict[str, Any] = {}
    for index, axes in enumerate(grid.flat):
        if index >= len(panels):
            axes.set_axis_off()
            continue
        name, content = list(panels.items())[index]
        draw(axes, content)
        if len(panels) > 1:
            axes.set_title(name)
        if index % across:
            axes.set_ylabel("")
        handles |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    shown = [name for name in names if name in handles]
    drawn.legend([handles[name] for name in shown], shown, loc="outside upper center", ncols=legend_columns)
    if synthetic:
        drawn.supxlabel("synthetic data", fontsize=6, color="#555555")
    return drawn


def _lines(axes: Any, curves: Mapping[str, Curve], order: Sequence[str], x_name: str, y_name: str) -> None:
    for label, curve in curves.items():
        index = order.index(label)
        colour, every = COLOURS[index % len(COLOURS)], max(1, len(curve.x) // 8)
        axes.plot(
            curve.x,
            curve.y,
            label=label,
            color=colour,
            linestyle=DASHES[index % len(DASHES)],
            marker=MARKERS[index % len(MARKERS)],
            markevery=(index % every, every),
        )
        if curve.deviation:
            low = [max(0.0, y - d) for y, d in zip(curve.y, curve.deviation, strict=True)]
            high = [min(100.0, y + d) for y, d in zip(curve.y, curve.deviation, strict=True)]
            axes.fill_between(curve.x, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xlabel(x_name)
    axes.set_ylabel(y_name)
    axes.xaxis.get_major_locator().set_params(integer=True)


def _stack(axes: Any, curves: Mapping[str, Curve], order: Sequence[str]) -> None:
    indices = [order.index(client) for client in curves]
    layers = axes.stackplot(
        next(iter(curves.values())).x,
        [curve.y for curve in curves.values()],
        labels=list(curves),
        colors=[COLOURS[index % len(COLOURS)] for index in indices],
        edgecolor="white",
        linewidth=0.3,
    )
    for layer, index in zip(layers, indices, strict=True):
        layer.set_hatch(HATCHES[index % len(HATCHES)])
    axes.set(xlabel="round", ylabel="weight")
    axes.margins(0)


def _rows(axes: Any, rows: Mapping[str, Mapping[str, Bar]], kinds: Sequence[str]) -> None:
    for place, row in enumerate(rows.values()):
        values = [bar.value for bar in row.values()]
        axes.plot([min(values), max(values)], [place, place], color="#777777", linewidth=0.8, zorder=1)
    for index, kind in enumerate(kinds):
        known = [(row[kind].value, place) for place, row in enumerate(rows.values()) if kind in row]
        x, y = zip(*known, strict=True) if known else ((), ())
        axes.scatter(x, y, label=kind, color=COLOURS[index], marker=MARKERS[index], s=13, zorder=2)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set(xlabel="Rank-1 (%)", ylim=(len(rows) - 0.4, -0.6))


def _bars(axes: Any, groups: Mapping[str, Mapping[str, Bar]], settings: Sequence[str]) -> None:
    width = 0.8 / len(settings)
    for index, setting in enumerate(settings):
        known = [(place, bars[setting]) for place, bars in enumerate(groups.values()) if setting in bars]
        axes.bar(
            [place + (index - (len(settings) - 1) / 2) * width for place, _ in known],
            [bar.value for _, bar in known],
            width * 0.92,
            yerr=[bar.deviation or 0.0 for _, bar in known] if any(bar.deviation for _, bar in known) else None,
            label=setting,
            color=COLOURS[index % len(COLOURS)],
            hatch=HATCHES[index % len(HATCHES)],
            edgecolor="white",
            linewidth=0.3,
            error_kw={"linewidth": 0.6},
        )
    axes.set_xticks(range(len(groups)), list(groups), rotation=35, ha="right", rotation_mode="anchor")
    axes.set_ylabel("Rank-1 (%)")
    axes.grid(axis="x", visible=False)
