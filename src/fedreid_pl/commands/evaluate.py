"""Implements `fedreid-pl evaluate`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fedreid_pl.commands.words import complain, first_process, title
from fedreid_pl.config import load_config
from fedreid_pl.config.launch import check_launch
from fedreid_pl.errors import counted
from fedreid_pl.scoring import Asked, asked_of, score

if TYPE_CHECKING:
    from fedreid_pl.scoring import Scored

OPEN_SET = (
    "Open-set measures. TPR: share of same-person pairs that are accepted, at a false positive rate (FPR) of pairs. "
    "DIR: share of queries whose person is detected and correctly identified, at a false alarm rate (FAR) for absent "
    "persons."
)


def evaluate(words: list[str]) -> int:
    """Evaluates the models of a run on its own test sets, or on the test sets of an unseen dataset."""
    asked = asked_of(words)
    check_launch(asked.config)
    scored = score(asked, complain)
    from fedreid_pl.reporting.tables import open_set_table
    from fedreid_pl.reporting.terminal import columns, fill

    width = columns(sys.stdout)
    if first_process():
        heading, table = _shown(asked, scored, width)
        print(f"{fill(heading, width)}\n")
        print(table)
        if scored.measured:
            print(f"\n{fill(OPEN_SET, width)}\n\n{open_set_table(scored.measured, width)}\n")
            print(fill(_thresholds(scored.thresholds), width))
    return 0


def _shown(asked: Asked, scored: Scored, width: int | None) -> tuple[str, str]:
    """Returns the heading and the table of the scores."""
    from fedreid_pl.federation.server.history import TESTS, UNSEEN, summarize
    from fedreid_pl.reporting import tables
    from fedreid_pl.reporting.terminal import fill

    config = scored.config
    if scored.history is None:
        heading = f"{title(load_config(asked.folder / 'config.yaml'), scored.round)}, tested on {config.data.name}"
        heading += f", splits 0 to {asked.splits - 1}" if asked.splits else ""
        return heading, tables.transfer_table(scored.measured, width)
    sections = {section: summarize(scored.history, section) for section in (*TESTS, *UNSEEN)}
    summary = {"name": config.name, **sections}
    table = tables.result_table(summary, None, width, scored.measured)
    if unseen := tables.unseen_table(summary, width):
        table += f"\n\n{unseen}\n\n{fill(tables.UNSEEN, width)}"
    return title(config, scored.round), table


def _thresholds(thresholds: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns a text with the calibrated thresholds, or with the setting that calibrates one."""
    if not thresholds:
        return "no threshold: train with data.val_ids=0.1 to hold out validation persons and calibrate a threshold"
    lines = []
    for model, entry in thresholds.items():
        persons = f"validation persons of {counted(entry['clients'], 'client')}"
        lines.append(
            f"threshold of the {model} model: cosine similarity {entry['value']:.4f} ({entry['far']:.0%} false alarms "
            f"in {entry['queries']} searches for {persons}, at most {entry['persons']} in a gallery)"
        )
    return "; ".join(lines)
