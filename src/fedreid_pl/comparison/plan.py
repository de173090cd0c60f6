"""Plans the runs of a comparison: each experiment with its overrides, for each seed and split."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedreid_pl.config import Config, compose, load_config
from fedreid_pl.config.values import whole_number
from fedreid_pl.data.locating import dataset_folders, locate_root
from fedreid_pl.data.minireid.versions import check_one_version
from fedreid_pl.data.naming import dataset_names
from fedreid_pl.errors import FedReIDError, nearest, printable

OPTIONS = ("exps", "seeds", "splits", "jobs", "out", "statistic", "leave_out", "baseline")
STATISTICS = {
    "last": "last evaluation",
    "best3": "mean of the three best evaluations, selected on test data",
    "best": "best evaluation, selected on test data",
}
DEFAULT_BASELINE = "fedpav"
MOST_SPLITS = 1000
RESERVED = {
    "exp": 'a comparison names its experiments with exps="ONE TWO"',
    "seed": 'a comparison names its seeds with seeds="0 1"',
    "output_dir": "every run of a comparison has the folder that `train` gives it; leave it out",
    "resume": "a comparison uses existing runs; to train a run again, move its folder away",
}
"""Keys that the words of a comparison may not set, with what to do instead."""

FolderOf = Callable[[Config, Sequence[str]], Path]


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One training run of a comparison.

    Attributes:
        experiment: label of the experiment: its name and overrides.
        words: command-line words of `train`.
        folder: folder of the run.
        split: number of the datasets' split in a comparison of several splits, otherwise `None`.
        target: left-out dataset in a comparison with `leave_out`, otherwise `None`.
    """

    experiment: str
    seed: int
    config: Config
    words: tuple[str, ...]
    folder: Path
    split: int | None = None
    target: str | None = None

    @property
    def name(self) -> str:
        """Returns the name of the run in printed lines."""
        split = "" if self.split is None else f" split {self.split}"
        return f"{self.group} seed {self.seed}{split}"

    @property
    def group(self) -> str:
        """Returns the experiment with its left-out dataset; runs of one group differ only in seed and split."""
        return group_label(self.experiment, self.target)

    @property
    def draw(self) -> tuple[int, int | None]:
        """Returns seed and split; runs of different experiments with equal seed and split form a pair."""
        return self.seed, self.split

    @property
    def role(self) -> str:
        """Returns `standalone`, `centralized` or `federated`."""
        return self.config.role


@dataclass(frozen=True, eq=False)
class Plan:
    """All runs of a comparison and its options.

    The runs are ordered seed by seed, so that the first finished runs can be compared.
    """

    runs: tuple[PlannedRun, ...]
    jobs: int
    statistic: str
    out: Path
    baseline: str | None = None

    @property
    def base(self) -> str:
        """The experiment that the others are compared with: `baseline`, else `fedpav`, else the first."""
        found = self.experiments
        return self.baseline or (DEFAULT_BASELINE if DEFAULT_BASELINE in found else found[0] if found else "")

    @property
    def experiments(self) -> list[str]:
        """Returns the labels of the experiments in the order of the command."""
        return list(dict.fromkeys(run.experiment for run in self.runs))

    @property
    def seeds(self) -> list[int]:
        """Returns the seeds in the order of the command."""
        return list(dict.fromkeys(run.seed for run in self.runs))

    @property
    def splits(self) -> list[int]:
        """Returns the splits in their order; an empty list without the option `splits`."""
        return list(dict.fromkeys(run.split for run in self.runs if run.split is not None))

    @property
    def targets(self) -> list[str]:
        """Returns the left-out datasets; an empty list without the option `leave_out`."""
        return list(dict.fromkeys(run.target for run in self.runs if run.target is not None))

    @property
    def synthetic(self) -> bool:
        """Returns whether the data of at least one run contain synthetic pictures."""
        return any(_is_synthetic(run) for run in self.runs)


def group_label(experiment: str, target: str | None) -> str:
    """Returns the label of an experiment with its left-out dataset.

    >>> group_label("fedpav", "GRID"), group_label("fedpav", None)
    ('fedpav, GRID left out', 'fedpav')
    """
    return experiment if target is None else f"{experiment}, {target} left out"


def _is_synthetic(run: PlannedRun) -> bool:
    """Returns whether a run's data are synthetic: as recorded in its folder, before training as configured."""
    try:
        return load_config(run.folder / "config.yaml").data.synthetic
    except FedReIDError:
        return run.config.data.synthetic


def make_plan(options: Mapping[str, str], words: Sequence[str], folder_of: FolderOf) -> Plan:
    """Returns the plan of a comparison with the configuration of every run.

    Args:
        options: `exps` (names or YAML files, each with `+KEY=VALUE` overrides, separated by spaces), `seeds`,
            `splits`, `jobs`, `out`, `statistic`, `baseline` (the experiment that the others are compared with) and
            `leave_out` (`each`, or names separated by commas: every experiment is trained once without each of these
            datasets), as text.
        words: `KEY=VALUE` for all runs.
        folder_of: returns the folder of a run for its configuration and words.

    Raises:
        FedReIDError: if an option, a word or an override is invalid, or two runs are equal.
    """
    experiments = options.get("exps", "").split()
    if not experiments:
        typed = " ".join(word for word in words if "=" not in word) or "local fedpav"
        raise FedReIDError(f'compare: give the experiments, exps="{typed}" (make: EXPS="{typed}")')
    seeds, jobs = read_seeds(options.get("seeds", "0")), read_jobs(options.get("jobs", "1"))
    statistic = options.get("statistic", "last")
    if statistic not in STATISTICS:
        raise FedReIDError(f"statistic={statistic}: no such statistic{nearest(statistic, list(STATISTICS))}")
    splits = _splits(options.get("splits"), words)
    targets = _targets(options.get("leave_out"), experiments[0], words)
    runs = [
        _planned(experiment, seed, split, target, words, folder_of)
        for seed in seeds
        for split in splits
        for target in targets
        for experiment in experiments
    ]
    _check_distinct(runs)
    names = list(dict.fromkeys(run.config.data.name for run in runs))
    if len(names) > 1:
        raise FedReIDError(f"data={names[1]}: the experiments share one data configuration, found {', '.join(names)}")
    check_one_version((run.name, run.config.data) for run in runs)
    out = Path(os.path.expanduser(options["out"])) if options.get("out") else Path("runs") / names[0] / "compare"
    plan = Plan(tuple(runs), jobs, statistic, out, options.get("baseline"))
    if plan.base not in plan.experiments:
        raise FedReIDError(f"baseline={plan.base}: is not among the experiments{nearest(plan.base, plan.experiments)}")
    return plan


def split_experiment(text: str) -> tuple[str, list[str]]:
    """Returns name and overrides of `NAME+KEY=VALUE+...`; a plus without `KEY=` after it is part of the value.

    >>> split_experiment("fedpav+optim.lr_head=1e+2+loss.margin=null")
    ('fedpav', ['optim.lr_head=1e+2', 'loss.margin=null'])
    """
    name, *overrides = re.split(r"\+(?=[A-Za-z_][\w.]*=)", text)
    return name, overrides


def _planned(
    experiment: str, seed: int, split: int | None, target: str | None, words: Sequence[str], folder_of: FolderOf
) -> PlannedRun:
    name, overrides = split_experiment(experiment)
    if "," in name and not os.path.exists(os.path.expanduser(name)):
        raise FedReIDError(f'exps={name}: separate experiments by spaces, exps="{name.replace(",", " ")}"')
    for word in (*words, *overrides):
        key = word.partition("=")[0]
        if key in RESERVED:
            raise FedReIDError(f"{word}: {RESERVED[key]}")
    own = (f"exp={name}", *words, *overrides, f"seed={seed}")
    if split:  # split 0 is the default
        own += (f"data.split={split}",)
    if target is not None:
        own += (f"data.leave_out={target}",)
    config = compose(own)
    label = "+".join([config.name, *overrides])
    return PlannedRun(label, seed, config, own, folder_of(config, own), split, target)


def _targets(text: str | None, experiment: str, words: Sequence[str]) -> list[str | None]:
    if text is None:
        return [None]
    if any(word.startswith("data.leave_out=") for word in words):
        raise FedReIDError(f"leave_out={text}: conflicts with data.leave_out; remove one of them")
    config = compose([f"exp={split_experiment(experiment)[0]}", *words]).data
    known = dataset_names(config.datasets) or list(dataset_folders(config, locate_root(config)))
    if text == "each":
        return [*known]
    names = [part.strip() for part in text.split(",")]
    if len(set(names)) < len(names):
        raise FedReIDError(f"leave_out={text}: a dataset occurs twice")
    for name in names:
        if name not in known:
            raise FedReIDError(f"leave_out={name}: no such dataset{nearest(name, ['each', *known])}")
    return [*names]


def read_jobs(text: str) -> int:
    """Returns the number of simultaneous runs in the option `jobs`.

    Raises:
        FedReIDError: unless it is a whole number of at least 1.
    """
    jobs = whole_number(text)
    if not jobs:
        raise FedReIDError(f"jobs={printable(text)}: must be a whole number of at least 1")
    return jobs


def read_switch(key: str, text: str) -> bool:
    """Returns the value of an option that is `true` or `false`.

    Raises:
        FedReIDError: for any other text.
    """
    if text not in ("true", "false"):
        raise FedReIDError(f"{key}={text}: expected true or false")
    return text == "true"


def read_seeds(text: str) -> list[int]:
    """Returns the seeds in a text such as `"0 1 2"` or `"0,1,2"`, in their order.

    Raises:
        FedReIDError: unless they are distinct whole numbers.
    """
    found = [whole_number(part) for part in text.replace(",", " ").split()]
    seeds = [seed for seed in found if seed is not None]
    if not seeds or len(seeds) < len(found):
        raise FedReIDError(f'seeds={printable(text)}: expected whole numbers, seeds="0 1 2"')
    if len(set(seeds)) < len(seeds):
        raise FedReIDError(f"seeds={text}: a seed occurs twice; equal runs show no deviation")
    return seeds


def _splits(text: str | None, words: Sequence[str]) -> list[int | None]:
    if text is None:
        return [None]
    count = whole_number(text)
    if count is None or not 1 < count <= MOST_SPLITS:
        raise FedReIDError(
            f"splits={printable(text)}: give the number of splits, 2 to {MOST_SPLITS}; splits=10 compares on the "
            "splits 0 to 9"
        )
    if any(word.startswith("data.split=") for word in words):
        raise FedReIDError(f"splits={text}: conflicts with data.split; remove one of them")
    return list(range(count))


def _check_distinct(runs: Sequence[PlannedRun]) -> None:
    names: set[str] = set()
    folders: dict[Path, str] = {}
    for run in runs:
        if run.name in names:
            raise FedReIDError(f"exps: {run.experiment} occurs twice")
        if run.folder in folders:
            raise FedReIDError(f"exps: {folders[run.folder]} and {run.name} have the same folder {run.folder}")
        names.add(run.name)
        folders[run.folder] = run.name
