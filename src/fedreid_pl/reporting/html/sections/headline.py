"""Section: the first table, with differences to standalone training, and the tables of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from fedreid_pl.reporting.html.elements import Sheet, paragraph
from fedreid_pl.reporting.html.markup import element, joined
from fedreid_pl.reporting.records import Experiments, RunRecord
from fedreid_pl.reporting.tables import percent

MINUS = "\N{MINUS SIGN}"
HEADLINE = 2
"""Number of a comparison's tables at the top of the page."""


def body(experiments: Experiments, standalone: RunRecord | None, tables: Sequence[Sheet]) -> Markup:
    """Returns the first tables of a comparison, or the table of a single run."""
    if tables:
        return joined(table.to_html() for table in tables[:HEADLINE])
    ((_, runs),) = list(experiments.items())[:1]
    if not any(runs[0].summary.get(section) for section in ("global", "local")):
        return paragraph("The run has no evaluation yet.")
    return _facts(runs[0], standalone) + run_sheet(runs[0], standalone).to_html()


def further(tables: Sequence[Sheet]) -> Markup:
    """Returns the remaining tables of a comparison."""
    return joined(table.to_html() for table in tables[HEADLINE:])


def run_sheet(run: RunRecord, standalone: RunRecord | None) -> Sheet:
    """Returns Rank-1 and mAP of a run's last round by test set in percent, and differences to standalone in points."""
    sections = [section for section in ("global", "local") if run.summary.get(section)]
    names = {"global": "global", "local": {"federated": "local"}.get(run.config.role, run.config.role)}
    header = ["test set"]
    for section in sections:
        header += [f"{names[section]} R1", f"{names[section]} mAP"]
    if standalone:
        header += ["standalone R1", *(f"{names[section]} {MINUS} standalone" for section in sections)]
    tests = list(dict.fromkeys(test for section in sections for test in run.summary[section]))
    rows = []
    for test in [*(test for test in tests if test != "mean"), *(["mean"] if "mean" in tests else [])]:
        row = [test]
        for section in sections:
            row += [percent(_last(run.summary, section, test, metric)) for metric in ("rank1", "mAP")]
        if standalone:
            alone = _last(standalone.summary, "local", test, "rank1")
            row += [percent(alone), *(_less(_last(run.summary, s, test, "rank1"), alone) for s in sections)]
        rows.append(row)
    notes = [
        "R1: Rank-1, the share of queries whose first gallery image shows the same person. mAP: mean average "
        "precision. Gallery images of the query's person by the query's own camera do not count. In percent."
    ]
    if standalone:
        notes.append(
            "Standalone: each client trained alone, with the same data, rounds and seed. Differences are in points of "
            "Rank-1."
        )
    return Sheet("Last round, by test set", header, rows, notes=notes)


def _facts(run: RunRecord, standalone: RunRecord | None) -> Markup:
    facts: dict[str, str] = {}
    named = {"federated": "local models"}.get(run.config.role, run.config.role)
    for section, name in (("global", "global model"), ("local", named)):
        if (value := _last(run.summary, section, "mean", "rank1")) is not None:
            facts[f"Rank-1, {name}"] = f"{percent(value)} %"
            alone = _last(standalone.summary, "local", "mean", "rank1") if standalone else None
            if alone is not None:
                facts[f"{name} {MINUS} standalone (points)"] = _less(value, alone)
    if (best := run.summary.get("best_round")) is not None:
        facts[f"best round (chosen by {run.summary.get('best_by', 'test')} data)"] = str(best)
    items = [element("div", element("dt", name), element("dd", value)) for name, value in facts.items()]
    note = paragraph("The scores are means over the test sets in the last round.", "note") if facts else None
    return joined([element("dl", *items, class_="facts"), note])


def _last(summary: Mapping[str, Any], section: str, test: str, metric: str) -> float | None:
    return summary.get(section, {}).get(test, {}).get(metric, {}).get("last")


def _less(value: float | None, other: float | None) -> str:
    return "-" if value is None or other is None else f"{100 * (value - other):+.1f}".replace("-", MINUS)
