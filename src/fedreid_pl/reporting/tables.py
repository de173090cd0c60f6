"""Tables in plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns aligned by spaces, the first `left` to the left and the others to the right, a rule below the header.

    >>> print(text_table(["client", "Rank-1"], [["viper", "41.5"]]))
    client  Rank-1
    --------------
    viper     41.5
    """
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = []
    for row in [header, *rows]:
        cells = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(lines)


def percent(value: float | None) -> str:
    """A share of one in percent with one decimal, `-` for a missing one.

    >>> percent(0.4152), percent(None)
    ('41.5', '-')
    """
    return "-" if value is None else f"{100 * value:.1f}"


def result_table(summary: Mapping[str, Any], standalone: Mapping[str, Any] | None = None) -> str:
    """The final table of a run: Rank-1 and mAP of the last round by test set, in percent.

    Args:
        summary: content of the run's summary.json.
        standalone: that of a `local` run on the same data, to print the difference of local models to it.
    """
    groups = {section: summary[section] for section in ("global", "local") if summary.get(section)}
    alone = (standalone or {}).get("local") if standalone is not summary else None
    labels = {"global": "global", "local": {"centralized": "central", "local": "alone"}.get(summary["name"], "local")}
    header = ["test set"]
    if any("untrained" in scores.get("rank1", {}) for scores in groups.get("global", {}).values()):
        header.append("untrained R1")
    for section in groups:
        header += [f"{labels[section]} R1", f"{labels[section]} mAP"]
    if alone:
        header += ["alone R1", "local-alone"]
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    names = [name for name in names if name != "mean"] + ["mean"] * ("mean" in names)
    rows = []
    for name in names:
        row = [name]
        if "untrained R1" in header:
            row.append(percent(_last(groups["global"], name, "rank1", "untrained")))
        for group in groups.values():
            row += [percent(_last(group, name, "rank1")), percent(_last(group, name, "mAP"))]
        if alone:
            mine, theirs = _last(groups.get("local", {}), name, "rank1"), _last(alone, name, "rank1")
            both = mine is not None and theirs is not None
            row += [percent(theirs), f"{100 * (mine - theirs):+.1f}" if both else "-"]  # type: ignore[operator]
        rows.append(row)
    return text_table(header, rows)


def _last(group: Mapping[str, Any], name: str, metric: str, which: str = "last") -> float | None:
    return group.get(name, {}).get(metric, {}).get(which)
