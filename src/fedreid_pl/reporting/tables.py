"""Tables in plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, NamedTuple

from fedreid_pl.errors import visible
from fedreid_pl.reporting.terminal import clip, width_of

SHORTEST = 8  # columns that are left of a name on a narrow terminal


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1, width: int | None = None) -> str:
    """Columns aligned by spaces, the first `left` to the left and the others to the right, a rule below the header.

    A table that is wider than `width` columns of a terminal is printed as several below each other, each with the
    first `left` columns; where not even one more column fits beside them, the texts of the first are shortened.

    >>> print(text_table(["client", "Rank-1"], [["viper", "41.5"]]))
    client  Rank-1
    --------------
    viper     41.5
    """
    table = [[visible(cell) for cell in row] for row in (header, *rows)]
    widths = [max(width_of(row[column]) for row in table) for column in range(len(header))]
    if width is not None and sum(widths) + 2 * (len(widths) - 1) > width and left < len(header):
        room = width - sum(2 + size for size in widths[1:left]) - max(2 + size for size in widths[left:])
        widths[0] = min(widths[0], max(room, SHORTEST))
        for row in table:
            row[0] = clip(row[0], widths[0])
    blocks: list[list[int]] = [list(range(left))]
    used = first = sum(widths[:left]) + 2 * (left - 1)
    for column in range(left, len(header)):
        if width is not None and used + 2 + widths[column] > width and len(blocks[-1]) > left:
            blocks.append(list(range(left)))
            used = first
        blocks[-1].append(column)
        used += 2 + widths[column]
    return "\n\n".join(_block(table, widths, block, left) for block in blocks)


def _block(table: Sequence[Sequence[str]], widths: Sequence[int], block: Sequence[int], left: int) -> str:
    lines = []
    for row in table:
        spaces = {column: " " * (widths[column] - width_of(row[column])) for column in block}
        cells = [row[column] + spaces[column] if column < left else spaces[column] + row[column] for column in block]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * (sum(widths[column] for column in block) + 2 * (len(block) - 1)))
    return "\n".join(lines)


def percent(value: float | None) -> str:
    """A share of one in percent with one decimal, `-` for a missing one.

    >>> percent(0.4152), percent(None)
    ('41.5', '-')
    """
    return "-" if value is None else f"{100 * value:.1f}"


class TransferScores(NamedTuple):
    """What one model scores on one test set: by metric the values of every split, shares of one."""

    model: str
    test: str
    metrics: Mapping[str, Sequence[float]]


def transfer_table(scores: Sequence[TransferScores], width: int | None = None) -> str:
    """Scores of models on sets that none of them was trained for, in percent.

    With several splits a cell is the mean over them and their sample standard deviation. `width` as in `text_table`.

    >>> print(transfer_table([TransferScores("global", "GRID", {"rank1": [0.2, 0.3], "mAP": [0.25, 0.25]})]))
    model   test set      Rank-1         mAP
    ----------------------------------------
    global  GRID      25.0 ± 7.1  25.0 ± 0.0
    """
    names = {
        **{f"rank{k}": f"Rank-{k}" for k in (1, 5, 10)},
        "mAP": "mAP",
        **{f"single_shot_rank{k}": f"single-shot R{k}" for k in (1, 5, 10)},
    }
    names = {metric: name for metric, name in names.items() if any(metric in row.metrics for row in scores)}
    rows = [[row.model, row.test, *(_spread(row.metrics.get(metric, ())) for metric in names)] for row in scores]
    return text_table(["model", "test set", *names.values()], rows, left=2, width=width)


def _spread(values: Sequence[float]) -> str:
    mean = percent(fmean(values) if values else None)
    return f"{mean} ± {percent(stdev(values))}" if len(values) > 1 else mean


def result_table(
    summary: Mapping[str, Any], standalone: Mapping[str, Any] | None = None, width: int | None = None
) -> str:
    """The final table of a run: Rank-1 and mAP of the last round by test set, in percent; single-shot where measured.

    Args:
        summary: content of the run's summary.json.
        standalone: that of a `local` run on the same data, to print the difference of local models to it.
        width: columns of the terminal, see `text_table`.
    """
    groups = {section: summary[section] for section in ("global", "local") if summary.get(section)}
    alone = (standalone or {}).get("local") if standalone is not summary else None
    labels = {"global": "global", "local": {"centralized": "central", "local": "alone"}.get(summary["name"], "local")}
    single = [name for name, group in groups.items() if any("single_shot_rank1" in test for test in group.values())]
    header = ["test set"]
    if any("untrained" in scores.get("rank1", {}) for scores in groups.get("global", {}).values()):
        header.append("untrained R1")
    for section in groups:
        header += [f"{labels[section]} R1", f"{labels[section]} mAP"]
        if section in single:
            header.append(f"{labels[section]} single-shot R1")
    if alone:
        header += ["alone R1", "local-alone"]
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    names = [name for name in names if name != "mean"] + ["mean"] * ("mean" in names)
    rows = []
    for name in names:
        row = [name]
        if "untrained R1" in header:
            row.append(percent(_last(groups["global"], name, "rank1", "untrained")))
        for section, group in groups.items():
            metrics = ("rank1", "mAP", *(["single_shot_rank1"] if section in single else []))
            row += [percent(_last(group, name, metric)) for metric in metrics]
        if alone:
            mine, theirs = _last(groups.get("local", {}), name, "rank1"), _last(alone, name, "rank1")
            both = mine is not None and theirs is not None
            row += [percent(theirs), f"{100 * (mine - theirs):+.1f}" if both else "-"]  # type: ignore[operator]
        rows.append(row)
    return text_table(header, rows, width=width)


def _last(group: Mapping[str, Any], name: str, metric: str, which: str = "last") -> float | None:
    return group.get(name, {}).get(metric, {}).get(which)
