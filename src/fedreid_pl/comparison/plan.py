"""Which runs a comparison consists of: experiments and their overrides, times seeds, times splits."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedreid_pl.config import Config, compose, load_config
from fedreid_pl.data.minireid.versions import check_one_version
from fedreid_pl.errors import FedReIDError, nearest

OPTIONS = ("exps", "seeds", "splits", "jobs", "out", "statistic")
STATISTICS = {
    "last": "last evaluation",
    "best3": "mean of the three best evaluations, selected on test data",
    "best": "best evaluation, selected on test data",
}
RESERVED = {
    "exp": 'a comparison names its experiments with exps="ONE TWO"',
    "seed": 'a comparison names its seeds with seeds="0 1"',
    "output_dir": "every run of a comparison has the folder that `train` gives it; leave it out",
    "resume": "a comparison goes on with what is there; to begin a run anew, move its folder away",
}
"""Keys that the words of a comparison may not set, with what to do instead."""

FolderOf = Callable[[Config, Sequence[str]], Path]


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One training run of a comparison.

    Attributes:
        experiment: label of the experiment: its name and overrides.
        words: what `train` is called with.
        folder: where it is kept.
        split: number of the datasets' split where several are compared.
    """

    experiment: str
    seed: int
    config: Config
    words: tuple[str, ...]
    folder: Path
    split: int | None = None

    @property
    def name(self) -> str:
        """As it is called on the screen."""
        return f"{self.experiment} seed {self.seed}" + ("" if self.split is None else f" split {self.split}")

    @property
    def draw(self) -> tuple[int, int | None]:
        """What runs of different experiments have to share to be a pair."""
        return self.seed, self.split

    @property
    def role(self) -> str:
        """`standalone`, `centralized` or `federated`."""
        return self.config.role


@dataclass(frozen=True, eq=False)
class Plan:
    """All runs of a comparison (seed by seed, so that what is done first can be compared), and its options."""

    runs: tuple[PlannedRun, ...]
    jobs: int
    statistic: str
    out: Path

    @property
    def experiments(self) -> list[str]:
        """Labels in the order they were given."""
        return list(dict.fromkeys(run.experiment for run in self.runs))

    @property
    def seeds(self) -> list[int]:
        """Seeds in the order they were given."""
        return list(dict.fromkeys(run.seed for run in self.runs))

    @property
    def splits(self) -> list[int]:
        """Splits in their order; none where the datasets are read in one."""
        return list(dict.fromkeys(run.split for run in self.runs if run.split is not None))

    @property
    def synthetic(self) -> bool:
        """Whether drawn pictures are among the data."""
        return any(_is_synthetic(run) for run in self.runs)


def _is_synthetic(run: PlannedRun) -> bool:
    """What was found of the pictures when the run was trained, or before that what its configuration expects."""
    try:
        return load_config(run.folder / "config.yaml").data.synthetic
    except FedReIDError:
        return run.config.data.synthetic


def make_plan(options: Mapping[str, str], words: Sequence[str], folder_of: FolderOf) -> Plan:
    """Composes the configuration of every run.

    Args:
        options: `exps` (names or YAML files, each with `+KEY=VALUE` overrides, separated by spaces), `seeds`,
            `splits`, `jobs`, `out` and `statistic`, as text.
        words: `KEY=VALUE` for all runs.
        folder_of: gives the folder of a run from its configuration and words.

    Raises:
        FedReIDError: for options, words or overrides that cannot be meant, or runs that are not distinct.
    """
    experiments = options.get("exps", "").split()
    if not experiments:
        raise FedReIDError('compare: give the experiments, exps="local fedpav" (make: EXPS="local fedpav")')
    seeds = _seeds(options.get("seeds", "0"))
    jobs = options.get("jobs", "1")
    if not (jobs.isascii() and jobs.isdigit() and int(jobs) > 0):
        raise FedReIDError(f"jobs={jobs}: must be a whole number of at least 1")
    statistic = options.get("statistic", "last")
    if statistic not in STATISTICS:
        raise FedReIDError(f"statistic={statistic}: no such statistic{nearest(statistic, list(STATISTICS))}")
    splits = _splits(options.get("splits"), words)
    runs = [
        _planned(experiment, seed, split, words, folder_of)
        for seed in seeds
        for split in splits
        for experiment in experiments
    ]
    _check_distinct(runs)
    names = list(dict.fromkeys(run.config.data.name for run in runs))
    if len(names) > 1:
        raise FedReIDError(f"data={names[1]}: the experiments share one data configuration, found {', '.join(names)}")
    check_one_version((run.name, run.config.data) for run in runs)
    out = Path(os.path.expanduser(options["out"])) if options.get("out") else Path("runs") / names[0] / "compare"
    return Plan(tuple(runs), int(jobs), statistic, out)


def split_experiment(text: str) -> tuple[str, list[str]]:
    """Name and overrides of `NAME+KEY=VALUE+...`; a plus that no `KEY=` follows belongs to what it stands in.

    >>> split_experiment("fedpav+optim.lr_head=1e+2+loss.margin=null")
    ('fedpav', ['optim.lr_head=1e+2', 'loss.margin=null'])
    """
    name, *overrides = re.split(r"\+(?=[A-Za-z_][\w.]*=)", text)
    return name, overrides


def _planned(experiment: str, seed: int, split: int | None, words: Sequence[str], folder_of: FolderOf) -> PlannedRun:
    name, overrides = split_experiment(experiment)
    for word in (*words, *overrides):
        key = word.partition("=")[0]
        if key in RESERVED:
            raise FedReIDError(f"{word}: {RESERVED[key]}")
    own = (f"exp={name}", *words, *overrides, f"seed={seed}")
    if split:  # the first is what is read without a word
        own += (f"data.split={split}",)
    config = compose(own)
    label = "+".join([config.name, *overrides])
    return PlannedRun(label, seed, config, own, folder_of(config, own), split)


def _seeds(text: str) -> list[int]:
    parts = text.replace(",", " ").split()
    if not parts or not all(part.isascii() and part.isdigit() for part in parts):
        raise FedReIDError(f'seeds={text}: expected whole numbers, seeds="0 1 2"')
    seeds = [int(part) for part in parts]
    if len(set(seeds)) < len(seeds):
        raise FedReIDError(f"seeds={text}: a seed stands twice; equal runs say nothing about deviation")
    return seeds


def _splits(text: str | None, words: Sequence[str]) -> list[int | None]:
    if text is None:
        return [None]
    if not (text.isascii() and text.isdigit() and int(text) > 1):
        raise FedReIDError(f"splits={text}: give how many, 2 or more: splits=10 compares on the splits 0 to 9")
    if any(word.startswith("data.split=") for word in words):
        raise FedReIDError(f"splits={text}: stands beside data.split; leave one of them out")
    return list(range(int(text)))


def _check_distinct(runs: Sequence[PlannedRun]) -> None:
    names: set[str] = set()
    folders: dict[Path, str] = {}
    for run in runs:
        if run.name in names:
            raise FedReIDError(f"exps: {run.experiment} stands twice")
        if run.folder in folders:
            raise FedReIDError(f"exps: {folders[run.folder]} and {run.name} have the same folder {run.folder}")
        names.add(run.name)
        folders[run.folder] = run.name
