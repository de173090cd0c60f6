"""`fedreid-pl train`."""

from __future__ import annotations

from fedreid_pl.commands.words import run_folder, title
from fedreid_pl.config import compose


def train(words: list[str]) -> int:
    """Runs an experiment and prints its table."""
    config = compose(words)
    folder = run_folder(config, words)
    from fedreid_pl.experiment import train as run  # torch and Lightning take seconds: not for a mistyped key
    from fedreid_pl.reporting.run_folder import build_summary, find_standalone
    from fedreid_pl.reporting.tables import result_table

    loop = run(config, folder)
    if loop.observers:
        summary = build_summary(loop)
        print(f"\n{title(config, loop.round)}\n")
        print(result_table(summary, None if config.name == "local" else find_standalone(config, folder)))
        print(
            f"\nRank-1 and mAP in percent; curves and ranked lists in {folder / 'report.html'}, "
            f"all numbers in {folder / 'metrics.csv'} and summary.json"
        )
    return 0
