"""Writes the table of docs/minireid.md: the frozen start, standalone (twice), centralized and FedPav, over seeds.

    python benchmarks/minireid_table.py [seeds="0 1 2 3 4"] [jobs=2] [KEY=VALUE ...]

The script calls `fedreid-pl compare` for missing runs, writes the table between the two marks in docs/minireid.md and
draws docs/minireid_difficulty.png. Differences are paired by seed; a difference above twice its standard error is bold.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from statistics import fmean, stdev

from pages import between

from fedreid_pl.cli import main
from fedreid_pl.data.minireid import DOMAINS

OUT = Path("runs/minireid/table")
DOCUMENT = Path(__file__).parent.parent / "docs" / "minireid.md"
FIGURE = DOCUMENT.with_name("minireid_difficulty.png")
BEGIN, END = "<!-- table -->", "<!-- end of table -->"
RESET = "local+optimizer_state=reset"
"""Standalone training with new momentum in every round, like a federated client."""
ROWS = {
    "frozen start": ("fedpav", "global", "untrained"),
    "standalone": ("local", "local", "last"),
    "standalone, momentum reset": (RESET, "local", "last"),
    "centralized": ("centralized", "local", "last"),
    "FedPav, global model": ("fedpav", "global", "last"),
    "FedPav, local models": ("fedpav", "local", "last"),
}
EXPERIMENTS = ("local", RESET, "centralized", "fedpav")
Scores = dict[str, dict[str, list[float]]]
"""Rank-1 in percent by row, domain, and seed in order."""


def read(out: Path) -> tuple[Scores, list[int]]:
    """Returns the scores of all complete seeds, and these seeds."""
    folders: dict[int, dict[str, Path]] = {}
    with open(out / "runs.csv", newline="") as file:
        for row in csv.DictReader(file):
            if row["complete"] == "True":
                folders.setdefault(int(row["seed"]), {})[row["experiment"]] = Path(row["folder"])
    seeds = sorted(seed for seed, runs in folders.items() if len(runs) == len(EXPERIMENTS))
    scores: Scores = {name: {domain: [] for domain in DOMAINS} for name in ROWS}
    for seed in seeds:
        for name, (experiment, section, kind) in ROWS.items():
            summary = json.loads((folders[seed][experiment] / "summary.json").read_text())
            for domain in DOMAINS:
                scores[name][domain].append(100 * summary[section][domain]["rank1"][kind])
    return scores, seeds


def cell(values: list[float], signed: bool = False) -> str:
    """Returns mean and sample standard deviation; a difference above twice its standard error is bold."""
    text = f"{fmean(values):{'+' if signed else ''}.1f}"
    if len(values) < 2:
        return text
    text += f" ± {stdev(values):.1f}"
    clear = signed and abs(fmean(values)) > 2 * stdev(values) / len(values) ** 0.5
    return f"**{text}**" if clear else text


def table(scores: Scores, seeds: list[int]) -> str:
    """Returns Markdown with a row per model, a column per domain, and the local models' difference to standalone."""
    names = [*DOMAINS, "mean"]
    lines = [f"| Rank-1 (%), synthetic data | {' | '.join(names)} |", "|---|" + "---:|" * len(names)]
    rows = {name: [*found.values(), mean_of(found)] for name, found in scores.items()}
    for name, values in rows.items():
        lines.append(f"| {name} | {' | '.join(cell(value) for value in values)} |")
    for opponent in ("standalone", "standalone, momentum reset"):
        pairs = zip(rows["FedPav, local models"], rows[opponent], strict=True)
        gaps = [[a - b for a, b in zip(*pair, strict=True)] for pair in pairs]
        lines.append(f"| FedPav, local models - {opponent} | {' | '.join(cell(gap, True) for gap in gaps)} |")
    said = f"Seeds {', '.join(map(str, seeds))}: mean ± sample deviation; bold: more than twice the standard error."
    return "\n".join([*lines, "", said])


def mean_of(found: dict[str, list[float]]) -> list[float]:
    """Returns the mean over the domains for each seed."""
    return [fmean(values) for values in zip(*found.values(), strict=True)]


def draw(scores: Scores, path: Path) -> None:
    """Draws bars of start, standalone, centralized and FedPav's local models by domain, with deviations."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.5), layout="constrained")
    axes = figure.subplots()
    shown = [name for name in ROWS if name != "FedPav, global model"]
    for place, name in enumerate(shown):
        values = list(scores[name].values())
        bars = [fmean(value) for value in values]
        errors = [stdev(value) if len(value) > 1 else 0 for value in values]
        axes.bar([x + 0.18 * place for x in range(len(bars))], bars, 0.18, yerr=errors, label=name)
    axes.set_xticks([x + 0.36 for x in range(len(DOMAINS))], [name.removeprefix("mini-") for name in DOMAINS])
    axes.set_ylabel("Rank-1 (%), synthetic data")
    axes.set_ylim(0, 100)
    axes.legend(ncols=4, loc="upper right")
    figure.savefig(path, dpi=120)


def run(words: list[str]) -> int:
    """Trains missing runs, writes the table and the figure, and returns the exit code of the comparison."""
    if not any(word.startswith("seeds=") for word in words):
        words = ["seeds=0 1 2 3 4", *words]
    command = ["compare", f"exps={' '.join(EXPERIMENTS)}", "evaluate_every=30", "logger=csv", f"out={OUT}", *words]
    code = main(command)
    if not (OUT / "runs.csv").exists():  # interrupted, or refused
        return code
    scores, seeds = read(OUT)
    if not seeds:
        return code
    draw(scores, FIGURE)
    text = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(between(text, BEGIN, END, table(scores, seeds)), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:] or ["jobs=2"]))
