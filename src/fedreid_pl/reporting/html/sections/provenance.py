"""How to make the same again: commands, configurations, versions."""

from __future__ import annotations

from html import escape

from fedreid_pl.config import reproducing_words, to_yaml
from fedreid_pl.reporting.html.elements import Sheet, folded, paragraph
from fedreid_pl.reporting.records import Experiments


def body(experiments: Experiments) -> str:
    """The command, the configuration and the versions of every experiment."""
    parts = []
    for label, runs in experiments.items():
        config = runs[0].config
        others = [str(run.config.seed) for run in runs[1:]]
        also = f" (and seed={', '.join(others)})" if others else ""
        command = " ".join(["fedreid-pl train", *reproducing_words(config)])
        parts.append(f"<h3>{escape(label + also)}</h3><pre><code>{escape(command)}</code></pre>")
        parts.append(folded("Configuration", f"<pre><code>{escape(to_yaml(config))}</code></pre>"))
        folders = [[str(run.config.seed), str(run.folder), str(run.rounds), _state(run.complete)] for run in runs]
        parts.append(
            folded(
                "Runs",
                Sheet(f"Runs of {label}", ["seed", "folder", "rounds", "state"], folders, 2).to_html(caption=False),
            )
        )
    versions = {
        name: text for runs in experiments.values() for name, text in runs[0].summary.get("versions", {}).items()
    }
    if versions:
        sheet = Sheet("Versions", ["package", "version"], [[name, text] for name, text in versions.items()], 2)
        parts.append(folded("Versions", sheet.to_html(caption=False)))
    return paragraph(
        "Each command computes the same numbers on the same data, machine and number of threads."
    ) + "".join(parts)


def _state(complete: bool) -> str:
    return "complete" if complete else "not complete"
