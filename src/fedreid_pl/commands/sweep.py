"""`fedreid-pl sweep`."""

from __future__ import annotations

from fedreid_pl.commands.words import run_folder, take
from fedreid_pl.config.launch import refuse_launcher


def sweep(words: list[str]) -> int:
    """Trains an experiment with every combination of values and names the best by validation persons."""
    refuse_launcher("sweep")
    from fedreid_pl.comparison.sweep_plan import OPTIONS, make_sweep

    plan = make_sweep(*take(words, *OPTIONS), run_folder)
    from fedreid_pl.comparison.sweep import sweep as run

    run(plan)
    return 0
