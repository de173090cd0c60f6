"""Implements `fedreid-pl compare`."""

from __future__ import annotations

from fedreid_pl.commands.words import run_folder, take
from fedreid_pl.config.launch import refuse_launcher


def compare(words: list[str]) -> int:
    """Trains the missing runs of several experiments and prints comparison tables."""
    refuse_launcher("compare")
    from fedreid_pl.comparison.plan import OPTIONS, make_plan

    plan = make_plan(*take(words, *OPTIONS), run_folder)
    from fedreid_pl.comparison.compare import compare as run

    run(plan)
    return 0
