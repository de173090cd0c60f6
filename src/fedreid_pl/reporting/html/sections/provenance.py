"""Section: how to repeat the runs, with commands, configurations and versions. It names no file of this machine."""

from __future__ import annotations

import yaml
from markupsafe import Markup

from fedreid_pl.data.naming import portable_command, shared_config
from fedreid_pl.reporting.html.elements import Sheet, folded, paragraph
from fedreid_pl.reporting.html.markup import element, joined
from fedreid_pl.reporting.records import Experiments, RunRecord


def body(experiments: Experiments) -> Markup:
    """Returns command, configuration and versions of every experiment."""
    parts = [
        paragraph(
            "On the same data, machine and number of threads, each command computes the same numbers again. Replace "
            "words in capitals by your own files and folders."
        )
    ]
    for label, runs in experiments.items():
        parts += _experiment(label, runs)
    versions = {
        name: text for runs in experiments.values() for name, text in runs[0].summary.get("versions", {}).items()
    }
    if versions:
        sheet = Sheet("Versions", ["package", "version"], [[name, text] for name, text in versions.items()], 2)
        parts.append(folded("Versions", sheet.to_html(caption=False)))
    return joined(parts)


def _experiment(label: str, runs: list[RunRecord]) -> list[Markup]:
    config = runs[0].config
    others = [str(run.config.seed) for run in runs[1:]]
    also = f" (and seed={', '.join(others)})" if others else ""
    text = yaml.safe_dump(shared_config(config), sort_keys=False, allow_unicode=True)
    rows = [[str(run.config.seed), str(run.rounds), "complete" if run.complete else "incomplete"] for run in runs]
    sheet = Sheet(f"Runs of {label}", ["seed", "rounds", "state"], rows)
    return [
        element("h3", label + also),
        _code(portable_command(config)),
        folded("Configuration", _code(text)),
        folded("Runs", sheet.to_html(caption=False)),
    ]


def _code(text: str) -> Markup:
    return element("pre", element("code", text))
