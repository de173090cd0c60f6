"""Computes the tables of docs/which_method.md from results/leave_one_out.csv."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from statistics import fmean, stdev

from pages import between, difference_cells, markdown

from fedreid_pl.functional.paired import Difference, family, paired_difference

BASELINE, CONTROL = "fedpav", "fedpav_twice"
PAGE = Path(__file__).parent.parent / "docs" / "which_method.md"
BEGIN, END = "<!-- measured -->", "<!-- end of measured -->"


@dataclass(frozen=True)
class Row:
    """One finished run; scores are in percent and of the unseen domain, unless their name indicates otherwise.

    `validated`: score in the round with the best Rank-1 on the clients' validation persons. `best_on_target`: the best
    evaluation on the unseen domain, as papers print it; a deployment cannot select it. `source`: mean of the server's
    model over the clients' test sets; `local`: the same of the clients' models. `seconds`: training time.
    """

    target: str
    method: str
    seed: int
    rounds: int
    rank1_last: float
    mAP_last: float
    validated_round: int | None
    rank1_validated: float | None
    mAP_validated: float | None
    rank1_best_on_target: float
    mAP_best_on_target: float
    source_rank1: float | None
    source_mAP: float | None
    local_rank1: float | None
    local_mAP: float | None
    seconds: float
    bytes_up: int
    bytes_down: int
    peak_memory_bytes: int

    def written(self) -> list[str]:
        """Returns the cells of the run's row in the CSV."""
        return [
            "" if value is None else f"{value:.4f}" if type(value) is float else str(value) for value in astuple(self)
        ]


ROWS = tuple(field.name for field in fields(Row))
WHOLE = ("seed", "rounds", "validated_round", "bytes_up", "bytes_down", "peak_memory_bytes")


def read_rows(path: Path) -> list[Row]:
    """Reads the rows of the CSV; returns no rows if the file is missing."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return [Row(**{name: _value(name, text) for name, text in line.items()}) for line in csv.DictReader(file)]


def _value(name: str, text: str) -> object:
    if name in ("target", "method"):
        return text
    return None if not text else int(text) if name in WHOLE else float(text)


def best_methods(rows: Sequence[Row], count: int, rounds: int) -> list[str]:
    """Returns the methods with the highest mean mAP of the validated round over all targets and the first three seeds.

    Excludes baselines and methods with missing runs.
    """
    means: dict[str, float] = {}
    used = [row for row in rows if row.rounds == rounds and row.seed < 3]
    most = max((len(_of(used, name)) for name in _methods(used)), default=0)
    for name in _methods(used):
        own = _of(used, name)
        if name not in (BASELINE, CONTROL, "local", "centralized") and len(own) == most:
            means[name] = fmean(_validated(row) for row in own)
    return sorted(means, key=lambda name: -means[name])[:count]


def whole(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows of each method's seeds that have all targets; other means are not comparable."""
    targets = {row.target for row in rows}
    found: dict[tuple[str, int, int], set[str]] = {}
    for row in rows:
        found.setdefault((row.method, row.seed, row.rounds), set()).add(row.target)
    return [row for row in rows if found[row.method, row.seed, row.rounds] == targets]


def differences(rows: Sequence[Row], metric: str, baseline: str = BASELINE) -> dict[str, Difference]:
    """Returns by method the paired difference to a baseline, with one value per seed: the mean over the targets.

    A seed counts if both methods have all targets. The verdicts use Holm's correction over all methods.
    """
    scores: dict[str, dict[int, list[float]]] = {}
    for row in whole(rows):
        scores.setdefault(row.method, {}).setdefault(row.seed, []).append(_metric(row, metric))
    base = scores.pop(baseline, {})
    pairs = {
        name: [fmean(own[seed]) - fmean(base[seed]) for seed in sorted(own) if seed in base]
        for name, own in scores.items()
    }
    return family({name: paired_difference(values) for name, values in pairs.items() if values})


def tables(rows: Sequence[Row]) -> str:
    """Returns Markdown: scores on the unseen domain, then on the clients' domains, and costs; only complete seeds."""
    rows = whole(rows)
    if not rows:
        return "No run is finished."
    return "\n\n".join([_unseen(rows), _own(rows), _said(rows)])


def write_page(rows: Sequence[Row], page: Path = PAGE) -> None:
    """Writes the tables between the two marks of the page."""
    text = page.read_text(encoding="utf-8")
    page.write_text(with_tables(text, rows), encoding="utf-8")


def with_tables(text: str, rows: Sequence[Row]) -> str:
    """Returns the page's text with the tables of these rows."""
    return between(text, BEGIN, END, tables(rows))


def _unseen(rows: Sequence[Row]) -> str:
    targets = list(dict.fromkeys(row.target for row in rows))
    found = differences(rows, "mAP_last")
    against_control = differences(rows, "mAP_last", CONTROL)
    head = ["method", *(f"{name.removeprefix('mini-')} R1 / mAP" for name in targets), "mean R1 / mAP, last"]
    head += ["validated", "best on target", "mAP - FedPav, points", "verdict"]
    head += ["mAP - control, points", "verdict"]
    lines = [head, ["---", *["---:"] * (len(targets) + 4), "---", "---:", "---"]]
    for name in _methods(rows):
        own = _of(rows, name)
        cells = [_pair([row for row in own if row.target == target], "last") for target in targets]
        cells += [_pair(own, kind) for kind in ("last", "validated", "best_on_target")]
        compared = [*_difference(found.get(name)), *_difference(against_control.get(name))]
        lines.append([f"`{name}`", *cells, *compared])
    return "Unseen domain (synthetic data), percent:\n\n" + markdown(lines)


def _own(rows: Sequence[Row]) -> str:
    base = fmean(row.seconds for row in _of(rows, BASELINE)) if _of(rows, BASELINE) else None
    head = ["method", "clients' domains, global model R1 / mAP", "local models R1 / mAP", "seeds"]
    head += ["seconds of training", "of FedPav's", "MB up and down per run", "peak memory, MB"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for name in _methods(rows):
        own = _of(rows, name)
        seconds = fmean(row.seconds for row in own)
        share = "-" if base is None else f"{seconds / base:.2f}"
        size = fmean(row.bytes_up + row.bytes_down for row in own) / 1e6
        memory = fmean(row.peak_memory_bytes for row in own) / 1e6
        scores = [_columns(own, f"{section}_rank1", f"{section}_mAP") for section in ("source", "local")]
        seeds = str(len({row.seed for row in own}))
        lines.append([f"`{name}`", *scores, seeds, f"{seconds:.0f}", share, f"{size:.0f}", f"{memory:.0f}"])
    return "The clients' own domains, and costs:\n\n" + markdown(lines)


def _said(rows: Sequence[Row]) -> str:
    rounds = sorted({row.rounds for row in rows})
    return (
        f"{len(rows)} runs of {', '.join(map(str, rounds))} rounds, results/leave_one_out.csv. A difference is the "
        "mean over seeds of the paired difference of the last round's mAP, itself a mean over the four targets, with a "
        "95 % bootstrap interval over seeds (`functional.paired`); the verdict is after Holm's correction over all "
        f"methods. The control is `{CONTROL}`. Best on target is the best evaluation of the unseen domain itself, as "
        "papers print it: nobody who deploys a model can choose it. Seconds are of runs beside other "
        "work on one machine, so they rank the methods roughly; `python benchmarks/method_costs.py` measures costs in "
        "turn."
    )


def _difference(found: Difference | None) -> tuple[str, str]:
    return ("-", "-") if found is None else difference_cells(found)


def _pair(rows: Sequence[Row], kind: str) -> str:
    return _columns(rows, f"rank1_{kind}", f"mAP_{kind}")


def _columns(rows: Sequence[Row], *names: str) -> str:
    cells = []
    for name in names:
        by_seed: dict[int, list[float]] = {}
        for row in rows:
            value = asdict(row)[name]
            if value is not None:
                by_seed.setdefault(row.seed, []).append(value)
        means = [fmean(values) for values in by_seed.values()]
        cells.append("-" if not means else f"{fmean(means):.1f}" + (f" ± {stdev(means):.1f}" if len(means) > 1 else ""))
    return " / ".join(cells) if set(cells) != {"-"} else "-"


def _validated(row: Row) -> float:
    return row.mAP_last if row.mAP_validated is None else row.mAP_validated


def _metric(row: Row, name: str) -> float:
    value = getattr(row, name)
    assert value is not None
    return float(value)


def _methods(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.method for row in rows))


def _of(rows: Sequence[Row], method: str) -> list[Row]:
    return [row for row in rows if row.method == method]
