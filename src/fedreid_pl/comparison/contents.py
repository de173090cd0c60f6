"""Selects the tables of a comparison."""

from __future__ import annotations

from collections.abc import Mapping

from fedreid_pl.comparison.accuracy import Experiments, table2, table3, table4
from fedreid_pl.comparison.course import communication_table, fluctuation_table, weight_tables
from fedreid_pl.comparison.differences import paired_table
from fedreid_pl.comparison.plan import Plan, PlannedRun
from fedreid_pl.comparison.results import Result
from fedreid_pl.comparison.tables import Table
from fedreid_pl.comparison.unseen import difference_table, unseen_table


def make_tables(plan: Plan, results: Mapping[PlannedRun, Result]) -> list[Table]:
    """Returns all tables of a comparison that have at least one row."""
    experiments: Experiments = {
        label: found
        for label in plan.experiments
        if (found := [results[run] for run in plan.runs if run.experiment == label and run in results])
    }
    kind = ", synthetic data" if plan.synthetic else ""
    paper = not plan.synthetic
    unseen = [unseen_table(experiments, kind, paper), difference_table(experiments, plan.base, kind)]
    left_out = [table for table in unseen if table is not None]
    if plan.targets:  # these runs have different clients: no common table of test sets
        return left_out
    tables = [table3(experiments, metric, plan.statistic, kind, paper) for metric in ("rank1", "mAP")]
    tables += [table for make in (table4, table2) if (table := make(experiments, plan.statistic, kind, paper))]
    if differences := paired_table(experiments, plan.base, plan.statistic, kind):
        tables.append(differences)
    tables += [fluctuation_table(experiments, kind), communication_table(experiments, kind)]
    return [table for table in (*tables, *left_out, *weight_tables(experiments, kind)) if table.rows]
