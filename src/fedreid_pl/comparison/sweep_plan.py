"""Plans the runs of a sweep: every combination of the given values, for each seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path

from fedreid_pl.comparison.plan import FolderOf, PlannedRun, read_jobs, read_seeds, read_switch
from fedreid_pl.config import compose
from fedreid_pl.errors import FedReIDError, nearest

OPTIONS = ("exp", "seeds", "jobs", "test", "statistic", "out")
STATISTICS = {"last": "last round", "best": "round with the best validation score"}
RESERVED = {
    "seed": "a sweep names its seeds with seeds=0,1",
    "output_dir": "every run of a sweep has the folder that `train` gives it; leave it out",
    "resume": "a sweep continues what is there; to begin a run anew, move its folder away",
}
"""Keys that the words of a sweep may not set, with what to do instead."""
SAME_PERSONS = (
    *("data", "data.root", "data.source", "data.version", "data.layout", "data.datasets", "data.scenario"),
    *("data.clients", "data.parts", "data.split", "data.split_seed", "data.val_ids", "data.overlap", "data.test_ids"),
)
"""Keys that determine the validation persons. A sweep cannot vary them: scores on different persons differ anyway."""
TEXTS = ("data.leave_out", "data.name_pattern", "data.cache_dir", "data.minireid_dir", "trainer.devices")
"""Keys whose single value may contain a comma."""
MOST_RUNS = 10_000

Point = tuple[tuple[str, str], ...]
"""One combination: a value for every key of the grid, in the order of the command."""


@dataclass(frozen=True, eq=False)
class SweepPlan:
    """All runs of a sweep, seed by seed, and its options.

    Attributes:
        keys: names of the keys that have several values.
        runs: by seed and combination, in the order in which they are trained.
        words: `KEY=VALUE` that all runs have.
        statistic: `last` or `best`, the round whose scores count.
        test: whether the table shows test scores.
        out: the CSV of all scores; `None` writes none.
    """

    experiment: str
    keys: tuple[str, ...]
    runs: Mapping[tuple[int, Point], PlannedRun]
    words: tuple[str, ...]
    jobs: int
    statistic: str
    test: bool
    out: Path | None

    @property
    def points(self) -> list[Point]:
        """Returns the combinations in the order of the command."""
        return list(dict.fromkeys(point for _, point in self.runs))

    @property
    def seeds(self) -> list[int]:
        """Returns the seeds in the order of the command."""
        return list(dict.fromkeys(seed for seed, _ in self.runs))


def make_sweep(options: Mapping[str, str], words: Sequence[str], folder_of: FolderOf) -> SweepPlan:
    """Returns the plan of a sweep with the configuration of every run.

    Args:
        options: `exp`, `seeds`, `jobs`, `test` (`true` or `false`), `statistic` and `out` as text.
        words: `KEY=VALUE` for all runs and `KEY=V1,V2,...` for the grid.
        folder_of: returns the folder of a run for its configuration and words.

    Raises:
        FedReIDError: if no key has several values, a value is empty or occurs twice, no validation persons are held
            out, or a word cannot be composed.
    """
    experiment = options.get("exp", "")
    if not experiment or "," in experiment:
        raise FedReIDError(
            f"exp={experiment}: a sweep tunes one experiment, sweep exp=fedpav optim.lr_backbone=0.005,0.02; "
            "`compare` trains several"
        )
    seeds, jobs = read_seeds(options.get("seeds", "0")), read_jobs(options.get("jobs", "1"))
    statistic = options.get("statistic", "last")
    if statistic not in STATISTICS:
        raise FedReIDError(f"statistic={statistic}: no such statistic{nearest(statistic, list(STATISTICS))}")
    test = read_switch("test", options.get("test", "false"))
    grid, fixed = _grid_of(words)
    runs: dict[tuple[int, Point], PlannedRun] = {}
    for seed in seeds:
        for point in (tuple(zip(grid, values, strict=True)) for values in product(*grid.values())):
            own = (f"exp={experiment}", *fixed, *(f"{key}={value}" for key, value in point), f"seed={seed}")
            config = compose(own)
            label = "+".join([config.name, *(f"{key}={value}" for key, value in point)])
            runs[seed, point] = PlannedRun(label, seed, config, own, folder_of(config, own))
    _check(list(runs.values()))
    out = Path(options["out"]).expanduser() if options.get("out") else None
    return SweepPlan(experiment, tuple(grid), runs, tuple(fixed), jobs, statistic, test, out)


def split_values(text: str) -> list[str]:
    """Returns the values of a text, separated by commas outside brackets and quotes.

    >>> split_values("0.005,0.02"), split_values("[10,20],[15]"), split_values("[10,20]")
    (['0.005', '0.02'], ['[10,20]', '[15]'], ['[10,20]'])
    """
    values, depth, quote = [""], 0, ""
    for mark in text:
        if quote:
            quote = "" if mark == quote else quote
        elif mark in "'\"":
            quote = mark
        else:
            depth += (mark in "[{(") - (mark in "]})")
            if mark == "," and depth == 0:
                values.append("")
                continue
        values[-1] += mark
    return [value.strip() for value in values]


def _grid_of(words: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Returns the values by key for words with several values, and the list of the other words."""
    grid: dict[str, list[str]] = {}
    fixed = []
    for word in words:
        key, _, text = word.partition("=")
        if key in RESERVED:
            raise FedReIDError(f"{word}: {RESERVED[key]}")
        values = [text] if key in TEXTS else split_values(text)
        if len(values) == 1:
            fixed.append(word)
            continue
        if key in SAME_PERSONS:
            raise FedReIDError(f"{word}: its values have other validation persons, and their scores cannot be compared")
        if key in grid:
            raise FedReIDError(f"{word}: the key occurs twice; write all its values in one word")
        if not all(values):
            raise FedReIDError(f"{word}: a value is empty; write {key}=V1,V2 without a comma at either end")
        if len(set(values)) < len(values):
            raise FedReIDError(f"{word}: a value occurs twice")
        grid[key] = values
    if not grid:
        raise FedReIDError("sweep: no key has several values; write one as KEY=V1,V2, optim.lr_backbone=0.005,0.02")
    if both := [word for word in fixed if word.partition("=")[0] in grid]:
        raise FedReIDError(f"{both[0]}: the key occurs twice; write all its values in one word")
    if (size := prod(map(len, grid.values()))) > MOST_RUNS:
        raise FedReIDError(f"sweep: {size:,} combinations, more than {MOST_RUNS:,}; give fewer values")
    return grid, fixed


def _check(runs: Sequence[PlannedRun]) -> None:
    if runs[0].config.data.val_ids == 0:
        raise FedReIDError(
            "sweep: data.val_ids=0 sets no validation persons to select by; add data.val_ids=0.1 (a tenth of "
            "each client's training persons)"
        )
    folders: dict[Path, str] = {}
    for run in runs:
        if run.folder in folders:
            raise FedReIDError(f"sweep: {folders[run.folder]} and {run.name} are the same run; write one of them")
        folders[run.folder] = run.name


def same_words(plan: SweepPlan, point: Point) -> Iterator[str]:
    """Yields the words that train a combination with `train`, without its seed."""
    yield f"exp={plan.experiment}"
    yield from plan.words
    yield from (f"{key}={value}" for key, value in point)
