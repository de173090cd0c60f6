"""Runs a study: trains its missing runs and saves the results of each run as rows of two CSV files."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from fedreid_pl.comparison.compare import check_runs
from fedreid_pl.comparison.plan import FolderOf, PlannedRun, make_plan
from fedreid_pl.comparison.results import read_result
from fedreid_pl.comparison.runner import train_runs
from fedreid_pl.comparison.study_file import Study
from fedreid_pl.comparison.study_persons import add_persons, persons_path
from fedreid_pl.comparison.study_rows import Key, Row, add_rows, read_rows, rows_of, run_key
from fedreid_pl.errors import FedReIDError, counted, visible
from fedreid_pl.federation.client.trainer import quiet
from fedreid_pl.federation.storage import check_output
from fedreid_pl.reporting.status import duration

THREADS = 1
"""Threads of every run: two runs side by side on two cores are faster than one run after the other with two threads."""
SECONDS_PER_EPOCH = 10.0
"""Default time of an epoch (nine clients of MiniReID, one thread), used until a row has a measured time."""
ALWAYS = ("report.images=false", "logger=none", "trainer.accelerator=cpu")
"""Words for every run that do not change its results, but make it faster and equal on every machine."""


@dataclass(frozen=True)
class StudyPlan:
    """All runs of a study in their order, with the paths of their results and folders.

    Attributes:
        results: CSV of the finished runs; the scores of test persons are in a second CSV beside it.
        work: parent folder of the runs' folders.
        keep: whether to keep the folder of a run after its rows are written.
    """

    name: str
    runs: tuple[PlannedRun, ...]
    jobs: int
    results: Path
    work: Path
    keep: bool

    def missing(self) -> list[PlannedRun]:
        """Returns the runs that have no row yet, in their order.

        Raises:
            FedReIDError: if the results cannot be read.
        """
        done = {row.key for row in read_rows(self.results)}
        return [run for run in self.runs if run_key(run) not in done]


def plan_study(
    study: Study, words: Sequence[str], jobs: int, results: Path, work: Path, keep: bool, folder_of: FolderOf
) -> StudyPlan:
    """Returns the plan of a study with the configuration of every run: group by group, seed by seed, each run once.

    Args:
        words: `KEY=VALUE` for all runs, in addition to those of the study.
        work: parent folder of the runs' folders.
        folder_of: returns the folder of a run, below `work`, for its configuration and words.

    Raises:
        FedReIDError: if a word or an experiment is invalid.
    """
    runs: dict[Key, PlannedRun] = {}
    for group in study.groups:
        options = {"exps": " ".join(group.experiments), "seeds": " ".join(map(str, range(group.seeds)))}
        for run in make_plan(options, [*study.words, *ALWAYS, *words], folder_of).runs:
            placed = replace(run, words=(*run.words, f"output_dir={run.folder}"))
            runs.setdefault(run_key(run), placed)
    return StudyPlan(study.name, tuple(runs.values()), jobs, results, work, keep)


def run_study(plan: StudyPlan, dry_run: bool = False) -> None:
    """Trains the missing runs and adds their rows to the results.

    First prints the missing runs and their expected time. A run that was trained before an interruption, but has no
    row yet, gets its rows without a second training.

    Args:
        plan: plan of the study.
        dry_run: whether to print the missing runs and train nothing.

    Raises:
        FedReIDError: before any training, if a run's configuration is invalid; at the end, if a run failed.
    """
    quiet()
    check_output(plan.results, "results")
    missing = plan.missing()
    _announce(plan, missing)
    if dry_run or not missing:
        return
    for run in missing:
        _collect(plan, run)
    missing = plan.missing()
    check_runs(missing)
    left = {run_key(run): seconds for run, seconds in zip(missing, expected_seconds(plan, missing), strict=True)}

    def trained(run: PlannedRun) -> None:
        if not _collect(plan, run):
            _say(f"{run.name}: its folder {run.folder} cannot be read; it has no row")
        left.pop(run_key(run), None)
        if left:
            _say(f"{len(left)} more to train, about {duration(sum(left.values()) / plan.jobs)}")

    train_runs(missing, plan.jobs, THREADS, trained)
    if missing := plan.missing():
        names = ", ".join(run.name for run in missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise FedReIDError(
            f"study {plan.name}: {counted(len(missing), 'run')} without a row: {names}; read train.log in the folders "
            f"below {plan.work}, and repeat the command"
        )


def expected_seconds(plan: StudyPlan, runs: Sequence[PlannedRun]) -> list[float]:
    """Returns the expected seconds of each run.

    This is the mean time in the rows of the same experiment. Without such rows it is the number of epochs times the
    mean time of an epoch in all rows, or times `SECONDS_PER_EPOCH` if there are no rows. An epoch is one pass over the
    training images of all clients.
    """
    kept: dict[Key, Row] = {row.key: row for row in read_rows(plan.results)}
    epochs = {(run.experiment, run.config.rounds): _epochs(run) for run in plan.runs}
    by_experiment: dict[tuple[str, int], list[float]] = {}
    for row in kept.values():
        by_experiment.setdefault((row.experiment, row.rounds), []).append(row.seconds)
    each = [fmean(seconds) / epochs[key] for key, seconds in by_experiment.items() if key in epochs]
    epoch = fmean(each) if each else SECONDS_PER_EPOCH
    return [_expected(run, by_experiment, epoch) for run in runs]


def _expected(run: PlannedRun, known: Mapping[tuple[str, int], list[float]], epoch: float) -> float:
    own = known.get((run.experiment, run.config.rounds))
    return fmean(own) if own else _epochs(run) * epoch


def _epochs(run: PlannedRun) -> int:
    return run.config.rounds * run.config.local_epochs


def _announce(plan: StudyPlan, missing: Sequence[PlannedRun]) -> None:
    there = len(plan.runs) - len(missing)
    if not missing:
        _say(f"study {plan.name}: all {there} runs are in {plan.results}")
        return
    counts: dict[str, list[int]] = {}
    for run in missing:
        counts.setdefault(run.experiment, []).append(run.seed)
    for experiment, seeds in counts.items():
        _say(f"  {experiment}: seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}")
    measured = bool(read_rows(plan.results))
    source = "from the seconds of the rows" if measured else f"at {SECONDS_PER_EPOCH:.0f} s an epoch, not measured"
    seconds = sum(expected_seconds(plan, missing)) / plan.jobs
    _say(
        f"study {plan.name}: {there} of {len(plan.runs)} runs are in {plan.results}, {len(missing)} to train, "
        f"{plan.jobs} at once with one thread each: about {duration(seconds)} ({source})"
    )


def _collect(plan: StudyPlan, run: PlannedRun) -> bool:
    """Writes the rows of a run if its folder is complete; returns whether the folder is complete."""
    result = read_result(run)
    if result is None:
        return False
    add_persons(persons_path(plan.results), result)  # before the rows: a run with rows is finished
    add_rows(plan.results, rows_of(result, THREADS))
    if not plan.keep:
        shutil.rmtree(run.folder, ignore_errors=True)
    return True


def _say(text: str) -> None:
    print(visible(text), file=sys.stderr, flush=True)
