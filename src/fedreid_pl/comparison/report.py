"""The report of a comparison, or of any runs: their tables are those of tables.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedreid_pl.bounded import read_text_inside
from fedreid_pl.comparison.contents import make_tables
from fedreid_pl.comparison.plan import STATISTICS, Plan, PlannedRun, group_label
from fedreid_pl.comparison.results import Result, read_result
from fedreid_pl.comparison.tables import Table
from fedreid_pl.data.minireid.versions import check_one_version
from fedreid_pl.errors import FedReIDError, printable
from fedreid_pl.reporting.html.elements import Sheet
from fedreid_pl.reporting.html.report import Report, report_of_run
from fedreid_pl.reporting.records import Experiments, group_runs, read_run

MOST_BYTES, MOST_RUNS = 16 * 1024 * 1024, 10_000
FIRST = ("table3", "table4", "unseen", "unseen_difference")
"""Tables at the top of the report, the first two of which are there: scores, and differences."""


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
        """See `PlannedRun.group`."""
        return group_label(self.experiment, self.target)


def report_of(folders: Sequence[Path]) -> Report:
    """The report of a run's folder, of a comparison's (with its runs.csv), or of several of either.

    Raises:
        FedReIDError: if a folder is neither, or nothing in it can be read.
    """
    if len(folders) == 1 and not (folders[0] / "runs.csv").is_file():
        return report_of_run(folders[0])
    experiments: Experiments = {}
    missing: list[str] = []
    turns: dict[str, tuple[str, str]] = {}  # experiment and left-out dataset by group
    statistic = "last"
    comparisons = [folder for folder in folders if (folder / "runs.csv").is_file()]
    if len(folders) == 1:
        statistic = _statistic(folders[0])
        for listed in read_listed(folders[0]):
            if (listed.folder / "metrics.csv").is_file():
                experiments.setdefault(listed.group, []).append(read_run(listed.folder))
                if listed.target:
                    turns[listed.group] = (listed.experiment, listed.target)
            else:
                missing.append(f"{listed.group} seed {listed.seed}" + f" split {listed.split}" * bool(listed.split))
        if not experiments:
            raise FedReIDError(f"{folders[0]}: none of its {len(missing)} runs is there; repeat the comparison")
    else:
        places = [folder for folder in folders if folder not in comparisons]
        places += [listed.folder for folder in comparisons for listed in read_listed(folder)]
        experiments = group_runs(read_run(place) for place in places)
    return comparison_report(experiments, _tables(experiments, statistic, turns), statistic, missing)


def comparison_report(
    experiments: Experiments, tables: Sequence[Table], statistic: str, missing: Sequence[str] = ()
) -> Report:
    """The report of several runs with their tables: Rank-1 and differences to standalone first.

    Raises:
        FedReIDError: if the runs are of different versions of MiniReID.
    """
    check_one_version((str(run.folder), run.config.data) for group in experiments.values() for run in group)
    ordered = [next((table for table in tables if table.key == key), None) for key in FIRST]
    first = [table for table in ordered if table]
    sheets = [
        Sheet(table.title, *table.body(), left=len(table.lead), notes=table.notes)
        for table in (*first, *(table for table in tables if table not in first))
    ]
    return Report(experiments, tables=sheets, missing=missing, statistic=STATISTICS[statistic])


def _tables(experiments: Experiments, statistic: str, turns: Mapping[str, tuple[str, str]]) -> list[Table]:
    """Those of the runs that are complete; `turns`: experiment and left-out dataset, where each is in turn."""
    runs = []
    for label, group in experiments.items():
        experiment, target = turns.get(label, (label, None))
        for run in group:
            config = run.config
            runs.append(PlannedRun(experiment, config.seed, config, (), run.folder, config.data.split, target))
    runs.sort(key=lambda run: (run.seed, run.split))
    plan = Plan(tuple(runs), 1, statistic, Path())
    results: Mapping[PlannedRun, Result] = {run: result for run in runs if (result := read_result(run))}
    return make_tables(plan, results)


def read_listed(folder: Path) -> list[Listed]:
    """The runs of a comparison. Folders are looked for from here, else from the folder of the comparison upwards.

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
    """The folder of a run that a comparison names: below here, or below a folder above the comparison's own.

    Raises:
        FedReIDError: if it lies elsewhere. A comparison may come from anybody, and what it names is read.
    """
    above = [Path.cwd(), *folder.resolve().parents[:4]]
    candidates = [place, *(parent / place for parent in folder.resolve().parents)]
    found = next((candidate for candidate in candidates if candidate.is_dir()), None)
    if found is None:
        return place
    if not any(found.resolve().is_relative_to(home) and home != Path(home.anchor) for home in above):
        raise FedReIDError(
            f"{folder / 'runs.csv'}: names the run {printable(str(place), 200)}, which lies elsewhere; name the "
            "folders of the runs instead: fedreid-pl report RUN RUN"
        )
    return found


def _statistic(folder: Path) -> str:
    """The statistic that tables.csv quotes."""
    try:
        for row in _rows(folder, "tables.csv"):
            kind, _, name = row["metric"].partition("_")
            if row["table"] == "table3" and kind == "rank1" and name in STATISTICS:
                return name
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error):
        pass
    return "last"
