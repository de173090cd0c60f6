"""The report of one or several runs: the order of its sections, and its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from markupsafe import Markup

import fedreid_pl
from fedreid_pl.errors import counted
from fedreid_pl.federation.server.context import RoundContext
from fedreid_pl.federation.server.observer import Observer
from fedreid_pl.federation.storage import write_text
from fedreid_pl.reporting.html.elements import Section, Sheet
from fedreid_pl.reporting.html.forest import Interval
from fedreid_pl.reporting.html.markup import element, joined
from fedreid_pl.reporting.html.page import page
from fedreid_pl.reporting.html.sections import (
    accuracy,
    cost,
    curves,
    differences,
    embedding,
    headline,
    local_gap,
    members,
    open_set,
    provenance,
    ranked,
    settings,
    slots,
    unseen,
    weights,
)
from fedreid_pl.reporting.records import Experiments, RunRecord, group_runs, read_run, read_standalone

NAME = "report.html"


@dataclass
class Report:
    """Content of a report.

    Args:
        experiments: runs by experiment.
        standalone: the `local` run for comparison, if there is a single run.
        tables: tables of a comparison as in tables.csv, the most important first.
        missing: names of runs that are planned but not found.
        statistic: name of the evaluation whose scores the tables show.
        forests: intervals of the forest plots, by title of a table of differences, measure and experiment.
    """

    experiments: Experiments
    standalone: RunRecord | None = None
    tables: Sequence[Sheet] = ()
    missing: Sequence[str] = field(default_factory=list)
    statistic: str = "last evaluation"
    forests: Mapping[str, Mapping[str, Mapping[str, Interval]]] = field(default_factory=dict)

    @property
    def runs(self) -> list[RunRecord]:
        """All runs."""
        return [run for runs in self.experiments.values() for run in runs]

    @property
    def synthetic(self) -> bool:
        """Whether some of the data are synthetic."""
        return any(run.config.data.synthetic for run in self.runs)

    def to_html(self) -> str:
        """Returns the document."""
        e, alone = self.experiments, self.standalone
        sections = [
            Section("results", "Results", headline.body(e, alone, self.tables)),
            Section("differences", "Differences to the baseline", differences.body(self.forests)),
            Section("unseen", "Datasets that were left out", unseen.body(e)),
            Section("accuracy", "Accuracy over rounds", accuracy.body(e, alone)),
            Section("settings", "Batch size and local epochs", settings.body(e)),
            Section("weights", "Aggregation weights", weights.body(e)),
            Section("gap", "Global, local and standalone models", local_gap.body(e, alone)),
            Section("cmc", "CMC curves", curves.body(e, alone)),
            Section("open-set", "Persons who are not in the gallery", open_set.body(e, alone)),
            Section("reranking", "After re-ranking", open_set.reranking(e, alone)),
            Section("members", "Participation of the clients", members.body(e)),
            Section("cost", "Cost", cost.body(e)),
            Section("slots", "Clients in parallel", slots.body(e)),
            Section("ranked", "Ranked lists", ranked.body(e)),
            Section("features", "Features before and after federation", embedding.body(e)),
            Section("tables", "Further tables", headline.further(self.tables)),
            Section("reproduce", "Configuration and command", provenance.body(e)),
        ]
        return page(self._title(), self._head(), sections)

    def _title(self) -> str:
        data = " and ".join(dict.fromkeys(run.config.data.name for run in self.runs))
        if len(self.runs) == 1:
            return f"{self.runs[0].config.name} on {data}"
        return f"{counted(len(self.experiments), 'experiment')} on {data}"

    def _head(self) -> Markup:
        flags = [
            element("span", "Synthetic data: a program drew the pictures, no person was photographed", class_="flag")
        ] * self.synthetic
        late = [f"{run.config.name}, seed {run.config.seed}" for run in self.runs if not run.complete]
        for name in late[:5]:
            flags.append(element("span", f"Incomplete run: {name}", class_="flag warn"))
        flags += [element("span", f"Missing run: {name}", class_="flag warn") for name in self.missing]
        return joined([element("p", *flags), element("p", self._lead(), class_="lead")])

    def _lead(self) -> str:
        seeds = sorted({run.config.seed for run in self.runs})
        rounds = sorted({run.rounds for run in self.runs})
        clients = sorted({len(run.summary.get("clients", {})) for run in self.runs} - {0})
        parts = [f"{_range(clients)} clients"] if clients else []
        parts += [f"{_range(rounds)} rounds", f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"]
        if any(len(runs) > 1 for runs in self.experiments.values()):
            splits = {run.config.data.split for run in self.runs}
            over = ["seeds"] * (len(seeds) > 1) + ["splits"] * (len(splits) > 1)
            parts.append(f"mean and sample standard deviation over {' and '.join(over)}")
        return f"{', '.join(parts)}. Scores: {self.statistic}. Written by fedreid_pl {fedreid_pl.__version__}."


def write_report(report: Report, path: Path) -> Path:
    """Writes a report atomically; returns its path.

    Raises:
        FedReIDError: if the file cannot be written.
    """
    write_text(path, report.to_html())
    return path


def report_of_run(folder: Path) -> Report:
    """Returns the report of one run, together with the standalone run next to it.

    Raises:
        FedReIDError: if the folder is not a run folder, or cannot be read.
    """
    run = read_run(folder)
    return Report(group_runs([run]), read_standalone(run))


class ReportFile(Observer):
    """Writes report.html when a run ends; an error is printed as a warning and does not stop the run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_end(self, federation: RoundContext) -> None:
        """Writes the file."""
        try:
            write_report(report_of_run(self.folder), self.folder / NAME)
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            federation.warn(f"{NAME} was not written ({reason}); run fedreid-pl report {self.folder} to write it")


def _range(values: Sequence[int]) -> str:
    return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"
