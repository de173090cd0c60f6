"""Runs a comparison: checks its plan, trains the missing runs and writes the tables."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fedreid_pl.callbacks import callbacks_of
from fedreid_pl.comparison.contents import make_tables
from fedreid_pl.comparison.plan import STATISTICS, Plan, PlannedRun
from fedreid_pl.comparison.report import comparison_report
from fedreid_pl.comparison.results import Result, read_result
from fedreid_pl.comparison.runner import train_runs
from fedreid_pl.comparison.tables import tidy_csv
from fedreid_pl.config import load_config
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.data.minireid.versions import check_resumed_version
from fedreid_pl.data.scenarios import load_federated_data
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.client.trainer import check_devices, quiet
from fedreid_pl.federation.server.checkpoint import Checkpoints
from fedreid_pl.federation.server.selection import check_selection
from fedreid_pl.federation.storage import write_text
from fedreid_pl.reporting.escaping import csv_text, markdown
from fedreid_pl.reporting.html.report import NAME, write_report
from fedreid_pl.reporting.records import RunRecord, read_run
from fedreid_pl.reporting.status import Status
from fedreid_pl.reporting.wandb_names import check_wandb_names
from fedreid_pl.start import DRAWN, initial_backbone


def compare(plan: Plan) -> None:
    """Trains the missing runs, prints the tables and writes them to `plan.out`.

    Raises:
        FedReIDError: before any training, if a run's configuration is invalid; at the end, after the tables of the
            complete runs are written, if a run failed.
    """
    quiet()
    results = {run: result for run in plan.runs if (result := read_result(run))}
    missing = [run for run in plan.runs if run not in results]
    for run in missing:
        _check_version(run)
    check_runs(missing)
    if missing and plan.splits:
        _check_splits(plan)
    try:
        plan.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FedReIDError(f"out={plan.out}: cannot be created ({error.strerror})") from error
    if missing:
        there = f"{len(results)} of {len(plan.runs)} runs are there, " if results else ""
        print(f"{there}{len(missing)} to train", file=sys.stderr, flush=True)
        train_runs(missing, plan.jobs)
        results |= {run: result for run in missing if (result := read_result(run))}
        missing = [run for run in plan.runs if run not in results]
    _report(plan, results)
    if missing:
        names = ", ".join(f"{run.name} ({run.folder})" for run in missing)
        raise FedReIDError(
            f"{len(missing)} of {len(plan.runs)} runs are missing: {names}; mend them and repeat the command"
        )


def _check_version(run: PlannedRun) -> None:
    """Checks that a run's folder does not hold a run with another version of MiniReID."""
    if not Checkpoints(run.folder / "checkpoints").rounds():
        return  # no round has been trained there
    try:
        before = load_config(run.folder / "config.yaml").data
    except FedReIDError:
        return  # `train` reports what is wrong with the file
    check_resumed_version(str(run.folder), before, run.config.data)


def warn_of_starts(results: Iterable[Result]) -> list[str]:
    """Returns a warning if the runs started from different recorded weights, otherwise an empty list."""
    folders: dict[str, list[str]] = {}
    for result in results:
        if result.start:
            folders.setdefault(result.start, []).append(result.run.name)
    if len(folders) < 2:
        return []
    parts = "; ".join(f"{start[:12]}: {', '.join(names)}" for start, names in sorted(folders.items()))
    return [
        "warning: the runs begin from different weights: other files or runs, or a start that was pretrained on "
        f"different processors or versions of torch ({parts}); begin them from the same weights to compare them"
    ]


def check_runs(runs: Sequence[PlannedRun]) -> None:
    """Checks all runs as `train` does, before any run is trained.

    Raises:
        FedReIDError: if the devices, the callbacks or the data of a run are invalid.
    """
    data: dict[str, FederatedData] = {}
    checked: set[str] = set()
    status = Status()
    for run in runs:
        if run.group in checked:  # runs of a group differ only in values that need no check
            continue
        checked.add(run.group)
        config = run.config
        check_devices(config)
        check_wandb_names(config)
        make_callbacks = callbacks_of(config)
        key = repr(config.data)
        if key not in data:
            data[key] = load_federated_data(config.data, status)
            status.done()
        check_selection(config, len(data[key].clients))
        for callback in make_callbacks().values():
            callback.check(config, data[key])
    drawn = next((run.config for run in runs if run.config.model.weights == DRAWN), None)
    if drawn is not None:  # takes half a minute: last, and once for all processes
        initial_backbone(drawn, status)
        status.done()


def _check_splits(plan: Plan) -> None:
    """Checks that the datasets have several splits."""
    first, *others = [run.config.data for run in plan.runs if run.experiment == plan.experiments[0]]
    if load_federated_data(first).digests == load_federated_data(others[0]).digests:
        raise FedReIDError(f"splits={len(plan.splits)}: data={first.name} has one split only")


def _report(plan: Plan, results: Mapping[PlannedRun, Result]) -> None:
    tables = make_tables(plan, results)
    warnings = warn_of_starts(results.values())
    head = _head(plan, results)
    for warning in warnings:
        print(warning, file=sys.stderr, flush=True)
    write_text(plan.out / "runs.csv", _runs_csv(plan, results))
    write_text(plan.out / "tables.csv", tidy_csv(tables))
    parts = [f"# {markdown(head)}", *map(markdown, warnings), *(table.to_markdown() for table in tables)]
    write_text(plan.out / "tables.md", "\n\n".join(parts) + "\n")
    if tables:
        print("\n\n".join([head, *(table.to_text() for table in tables)]))
        print(f"\nThese tables are in {plan.out / 'tables.md'} and tables.csv, where they come from in runs.csv")
        print(f"Curves, ranked lists and these tables on one page: {_write_page(plan, results)}")


def _write_page(plan: Plan, results: Mapping[PlannedRun, Result]) -> Path:
    experiments: dict[str, list[RunRecord]] = {}
    for run in results:
        experiments.setdefault(run.group, []).append(read_run(run.folder))
    groups = dict.fromkeys(run.group for run in plan.runs)
    ordered = {label: experiments[label] for label in groups if label in experiments}
    missing = [run.name for run in plan.runs if run not in results]
    return write_report(
        comparison_report(ordered, make_tables(plan, results), plan.statistic, missing), plan.out / NAME
    )


def _head(plan: Plan, results: Mapping[PlannedRun, Result]) -> str:
    data = plan.runs[0].config.data.name + (" (synthetic data)" if plan.synthetic else "")
    seeds = f"seed{'s' * (len(plan.seeds) > 1)} {', '.join(map(str, plan.seeds))}"
    over = ["seeds"] * (len(plan.seeds) > 1) + ["splits"] * (len(plan.splits) > 1)
    deviation = f"; mean ± sample standard deviation over {' and '.join(over)}" if over else ""
    absent = [run.name for run in plan.runs if run not in results]
    without = f"; WITHOUT {', '.join(absent)}" if absent else ""
    seeds += f", left out in turn: {', '.join(plan.targets)}" if plan.targets else ""
    seeds += f", splits 0 to {plan.splits[-1]}" if plan.splits else ""
    return f"Comparison on {data}, {seeds}{deviation}; {STATISTICS[plan.statistic]}{without}"


def _runs_csv(plan: Plan, results: Mapping[PlannedRun, Result]) -> str:
    rows = [
        [
            run.experiment,
            run.seed,
            run.config.data.split,
            run.folder,
            run in results,
            run.config.rounds,
            run.target or "",
        ]
        for run in plan.runs
    ]
    return csv_text(["experiment", "seed", "split", "folder", "complete", "rounds", "left_out"], rows)
