"""Builds the report of a comparison, or of several runs, with the tables of tables.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedreid_pl.bounded import read_text_inside
from fedreid_pl.comparison.contents import make_tables
from fedreid_pl.comparison.differences import METRIC
from fedreid_pl.comparison.plan import STATISTICS, Plan, PlannedRun, group_label
from fedreid_pl.comparison.results import Result, read_result
from fedreid_pl.comparison.tables import Table
from fedreid_pl.data.minireid.versions import check_one_version
from fedreid_pl.errors import FedReIDError, printable
from fedreid_pl.reporting.html.elements import Sheet
from fedreid_pl.reporting.html.forest import Interval
from fedreid_pl.reporting.html.report import Report, report_of_run
from fedreid_pl.reporting.records import Experiments, group_runs, read_run

MOST_BYTES, MOST_RUNS = 16 * 1024 * 1024, 10_000
FIRST = ("table3", "table4", "unseen", "unseen_difference")
"""Keys of the tables that come first in the report: scores, then differences."""
DIFFERENCES = ("difference", "unseen_difference")
"""Keys of the tables that the report also draws as forest plots."""


@dataclass(frozen=True)
class Listed:
    """A line of runs.csv."""

    experiment: str
    seed: int
    split: int
    folder: Path
    target: str | None = None

    @property
    def group(self) -> str:
        """Returns the label of the run's group, see `PlannedRun.group`."""
        return group_label(self.experiment, self.target)


def report_of(folders: Sequence[Path]) -> Report:
    """Returns the report of a run's folder, of a comparison's folder (with runs.csv), or of several such folders.

    Raises:
        FedReIDError: if a folder belongs to neither, or none of its runs can be read.
    """
    if len(folders) == 1 and not (folders[0] / "runs.csv").is_file():
        return report_of_run(folders[0])
    experiments: Experiments = {}
    missing: list[str] = []
    turns: dict[str, tuple[str, str]] = {}  # experiment and left-out dataset by group
    statistic, baseline = "last", None
    comparisons = [folder for folder in folders if (folder / "runs.csv").is_file()]
    if len(folders) == 1:
        statistic, baseline = _statistic(folders[0]), _baseline(folders[0])
        for listed in read_listed(folders[0]):
            if (listed.folder / "metrics.csv").is_file():
                experiments.setdefault(listed.group, []).append(read_run(listed.folder))
                if listed.target:
                    turns[listed.group] = (listed.experiment, listed.target)
            else:
                missing.append(f"{listed.group} seed {listed.seed}" + f" split {listed.split}" * bool(listed.split))
        if not experiments:
            raise FedReIDError(f"{folders[0]}: all of its {len(missing)} runs are missing; repeat the comparison")
    else:
        places = [folder for folder in folders if folder not in comparisons]
        places += [listed.folder for folder in comparisons for listed in read_listed(folder)]
        experiments = group_runs(read_run(place) for place in places)
    return comparison_report(experiments, _tables(experiments, statistic, turns, baseline), statistic, missing)


def comparison_report(
    experiments: Experiments, tables: Sequence[Table], statistic: str, missing: Sequence[str] = ()
) -> Report:
    """Returns the report of several runs; the tables of Rank-1 and of the differences to standalone come first.

    Raises:
        FedReIDError: if the runs used different versions of MiniReID.
    """
    check_one_version((str(run.folder), run.config.data) for group in experiments.values() for run in group)
    ordered = [next((table for table in tables if table.key == key), None) for key in FIRST]
    first = [table for table in ordered if table]
    sheets = [
        Sheet(table.title, *table.body(), left=len(table.lead), notes=table.notes)
        for table in (*first, *(table for table in tables if table not in first))
    ]
    forests = {table.title: forests_of(table) for table in tables if table.key in DIFFERENCES}
    return Report(experiments, tables=sheets, missing=missing, statistic=STATISTICS[statistic], forests=forests)


def forests_of(table: Table) -> dict[str, dict[str, Interval]]:
    """Returns the rows of a table of differences as intervals, by measure and experiment."""
    found: dict[str, dict[str, Interval]] = {}
    for (experiment, measure, verdict), (mean, low, high, *_) in table.rows:
        if mean is not None:
            lowest, highest = (None if cell is None else cell.mean for cell in (low, high))
            found.setdefault(measure, {})[experiment] = Interval(mean.mean, lowest, highest, verdict)
    return found


def _tables(
    experiments: Experiments, statistic: str, turns: Mapping[str, tuple[str, str]], baseline: str | None
) -> list[Table]:
    """Returns the tables of the complete runs.

    Args:
        experiments: runs by group.
        statistic: `last`, `best3` or `best`.
        turns: experiment and left-out dataset by group, for a comparison with `leave_out`.
        baseline: the experiment that the others are compared with.
    """
    runs = []
    for label, group in experiments.items():
        experiment, target = turns.get(label, (label, None))
        for run in group:
            config = run.config
            runs.append(PlannedRun(experiment, config.seed, config, (), run.folder, config.data.split, target))
    runs.sort(key=lambda run: (run.seed, run.split))
    plan = Plan(tuple(runs), 1, statistic, Path(), baseline)
    results: Mapping[PlannedRun, Result] = {run: result for run in runs if (result := read_result(run))}
    return make_tables(plan, results)


def read_listed(folder: Path) -> list[Listed]:
    """Returns the runs in runs.csv; searches their folders from the current folder, then from the comparison's parents.

    Raises:
        FedReIDError: if runs.csv cannot be read.
    """
    path = folder / "runs.csv"
    try:
        rows = list(_rows(folder, "runs.csv"))
        if len(rows) > MOST_RUNS:
            raise FedReIDError(f"{path}: names {len(rows):,} runs, at most {MOST_RUNS:,} are read")
        return [
            Listed(
                *(row["experiment"], int(row["seed"]), int(row.get("split") or 0)),
                _find(Path(row["folder"]), folder),
                row.get("left_out") or None,
            )
            for row in rows
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise FedReIDError(f"{path}: cannot be read as the runs of a comparison; repeat the comparison") from error


def _rows(folder: Path, name: str) -> Iterator[dict[str, str]]:
    return csv.DictReader(io.StringIO(read_text_inside(folder, name, MOST_BYTES)))  # type: ignore[return-value]


def _find(place: Path, folder: Path) -> Path:
    """Returns the folder of a run that runs.csv names: below the current folder or a parent of the comparison.

    Raises:
        FedReIDError: if the folder is elsewhere: a comparison from another person must not read any other files.
    """
    above = [Path.cwd(), *folder.resolve().parents[:4]]
    candidates = [place, *(parent / place for parent in folder.resolve().parents)]
    found = next((candidate for candidate in candidates if candidate.is_dir()), None)
    if found is None:
        return place
    if not any(found.resolve().is_relative_to(home) and home != Path(home.anchor) for home in above):
        raise FedReIDError(
            f"{folder / 'runs.csv'}: names the run {printable(str(place), 200)}, which is elsewhere; name the "
            "folders of the runs instead: fedreid-pl report RUN RUN"
        )
    return found


def _baseline(folder: Path) -> str | None:
    """The experiment that the differences in tables.csv are to."""
    try:
        for row in _rows(folder, "tables.csv"):
            if row["table"] in DIFFERENCES and row["metric"].startswith(METRIC):
                return row["metric"].removeprefix(METRIC)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error):
        pass
    return None


def _statistic(folder: Path) -> str:
    """Returns the statistic of the scores in tables.csv, `last` if the file is missing or damaged."""
    try:
        for row in _rows(folder, "tables.csv"):
            kind, _, name = row["metric"].partition("_")
            if row["table"] == "table3" and kind == "rank1" and name in STATISTICS:
                return name
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error):
        pass
    return "last"
