"""Formats tables in plain text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, NamedTuple

from fedreid_pl.errors import visible
from fedreid_pl.reporting.terminal import clip, width_of

OPEN_SET = {
    "tpr@fpr=0.01": "TPR, FPR 1 %",
    "tpr@fpr=0.001": "TPR, FPR 0.1 %",
    "dir@far=0.01": "DIR, FAR 1 %",
    "dir@far=0.001": "DIR, FAR 0.1 %",
    "false_alarms": "false alarms",
    "identified": "identified",
}
"""Columns of open-set measures; the last two use the calibrated threshold."""

RERANKED = {"reranked_rank1": "re-ranked R1", "reranked_mAP": "re-ranked mAP"}
"""Columns of scores after k-reciprocal re-ranking, separate from the scores without re-ranking."""

SHORTEST = 8  # shortest width of a name on a narrow terminal


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1, width: int | None = None) -> str:
    """Returns a table with aligned columns, the first `left` to the left and the others to the right.

    A table wider than `width` is split into several tables below each other, each with the first `left` columns. If not
    even one further column fits, the texts of the first column are shortened.

    Args:
        header: heading of each column.
        rows: cells of each row.
        left: number of columns that name the row.
        width: columns of the terminal; `None` sets no limit.

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
    """Returns a share in percent with one decimal, `-` for `None`.

    >>> percent(0.4152), percent(None)
    ('41.5', '-')
    """
    return "-" if value is None else f"{100 * value:.1f}"


class TransferScores(NamedTuple):
    """Scores of one model on one test set: by metric the values of every split, from 0 to 1."""

    model: str
    test: str
    metrics: Mapping[str, Sequence[float]]


def transfer_table(scores: Sequence[TransferScores], width: int | None = None) -> str:
    """Returns scores of models on test sets for which they were not trained, in percent.

    With several splits, a cell has their mean and sample standard deviation. `width` is the width of the terminal.

    >>> print(transfer_table([TransferScores("global", "GRID", {"rank1": [0.2, 0.3], "mAP": [0.25, 0.25]})]))
    model   test set      Rank-1         mAP
    ----------------------------------------
    global  GRID      25.0 ± 7.1  25.0 ± 0.0
    """
    names = {
        **{f"rank{k}": f"Rank-{k}" for k in (1, 5, 10)},
        "mAP": "mAP",
        **{f"single_shot_rank{k}": f"single-shot R{k}" for k in (1, 5, 10)},
        **RERANKED,
    }
    return _by_model(scores, names, width)


def open_set_table(scores: Sequence[TransferScores], width: int | None = None) -> str:
    """Returns the open-set measures of models, in percent: the person of a query may be absent from the gallery.

    >>> print(open_set_table([TransferScores("global", "GRID", {"tpr@fpr=0.01": [0.5], "dir@far=0.01": [0.25]})]))
    model   test set  TPR, FPR 1 %  DIR, FAR 1 %
    --------------------------------------------
    global  GRID              50.0          25.0
    """
    return _by_model(scores, OPEN_SET, width)


def _by_model(scores: Sequence[TransferScores], names: Mapping[str, str], width: int | None) -> str:
    names = {metric: name for metric, name in names.items() if any(metric in row.metrics for row in scores)}
    rows = [[row.model, row.test, *(_spread(row.metrics.get(metric, ())) for metric in names)] for row in scores]
    return text_table(["model", "test set", *names.values()], rows, left=2, width=width)


def _spread(values: Sequence[float]) -> str:
    mean = percent(fmean(values) if values else None)
    return f"{mean} ± {percent(stdev(values))}" if len(values) > 1 else mean


def result_table(
    summary: Mapping[str, Any],
    standalone: Mapping[str, Any] | None = None,
    width: int | None = None,
    reranked: Sequence[TransferScores] = (),
) -> str:
    """Returns the final table of a run: Rank-1 and mAP of the last round by test set, in percent.

    Single-shot and re-ranked scores have their own columns, if they were measured.

    Args:
        summary: content of the run's summary.json.
        standalone: summary of a `local` run on the same data; the table then shows the difference of the local models.
        width: columns of the terminal, see `text_table`.
        reranked: scores after re-ranking, `reranked_rank1` and `reranked_mAP`, by model and test set.
    """
    alone = (standalone or {}).get("local") if standalone is not summary else None
    summary = _with_reranked(summary, reranked)
    groups = {section: summary[section] for section in ("global", "local") if summary.get(section)}
    labels = {"global": "global", "local": {"centralized": "central", "local": "alone"}.get(summary["name"], "local")}
    single = [name for name, group in groups.items() if any("single_shot_rank1" in test for test in group.values())]
    again = [name for name, group in groups.items() if any("reranked_rank1" in test for test in group.values())]
    header = ["test set"]
    if any("untrained" in scores.get("rank1", {}) for scores in groups.get("global", {}).values()):
        header.append("untrained R1")
    for section in groups:
        header += [f"{labels[section]} R1", f"{labels[section]} mAP"]
        header += [f"{labels[section]} single-shot R1"] * (section in single)
        header += [f"{labels[section]} {name}" for name in RERANKED.values()] * (section in again)
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
            metrics = [
                "rank1",
                "mAP",
                *["single_shot_rank1"] * (section in single),
                *list(RERANKED) * (section in again),
            ]
            row += [percent(_last(group, name, metric)) for metric in metrics]
        if alone:
            mine, theirs = _last(groups.get("local", {}), name, "rank1"), _last(alone, name, "rank1")
            both = mine is not None and theirs is not None
            row += [percent(theirs), f"{100 * (mine - theirs):+.1f}" if both else "-"]  # type: ignore[operator]
        rows.append(row)
    return text_table(header, rows, width=width)


UNSEEN = (
    "Unseen: no client trains on these datasets. Validation, BatchNorm statistics and the public set use none of their "
    "images, and they do not influence the choice of the best round."
)


def unseen_table(summary: Mapping[str, Any], width: int | None = None) -> str:
    """Returns Rank-1 and mAP of the last round on the datasets of `data.leave_out`; empty without such datasets.

    If a run has several models, a row has their mean; the rows of the single models follow.

    Args:
        summary: content of the run's summary.json.
        width: columns of the terminal, see `text_table`.

    >>> found = {"GRID": {"rank1": {"last": 0.25}, "mAP": {"last": 0.3}}}
    >>> print(unseen_table({"unseen": {**found, "mean": found["GRID"]}}).splitlines()[-1])
    GRID             25.0  30.0
    """
    shown = dict(unseen_scores(summary))
    rows = [[name, *(percent(_last(shown, name, metric)) for metric in ("rank1", "mAP"))] for name in shown]
    return text_table(["unseen test set", "R1", "mAP"], rows, width=width) if rows else ""


def unseen_scores(summary: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields the rows of a summary's unseen test sets: each set, their mean if there are several, then each model."""
    found, models = (summary.get(section) or {} for section in ("unseen", "unseen_models"))
    several = len(found) > 2
    yield from ((name, scores) for name, scores in found.items() if name != "mean" or several)
    yield from ((name, scores) for name, scores in models.items() if name != "mean")


def _with_reranked(summary: Mapping[str, Any], reranked: Sequence[TransferScores]) -> dict[str, Any]:
    """Returns a copy of a summary with re-ranked scores of the test sets and their mean."""
    result = dict(summary)
    for section in ("global", "local"):
        group = {name: dict(scores) for name, scores in (summary.get(section) or {}).items()}
        means: dict[str, list[float]] = {}
        for row in reranked:
            if (row.model == "global") != (section == "global"):
                continue
            name = row.test if row.test in group else row.model  # local scores may have the client's name
            for metric in RERANKED:
                if metric in row.metrics and name in group:
                    group[name][metric] = {"last": row.metrics[metric][0]}
                    means.setdefault(metric, []).append(row.metrics[metric][0])
        for metric, values in means.items():
            if "mean" in group:
                group["mean"][metric] = {"last": fmean(values)}
        result[section] = group
    return result


def _last(group: Mapping[str, Any], name: str, metric: str, which: str = "last") -> float | None:
    return group.get(name, {}).get(metric, {}).get(which)
