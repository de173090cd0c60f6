"""Implements `fedreid-pl study`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fedreid_pl.commands.words import run_folder, take
from fedreid_pl.config import Config
from fedreid_pl.config.launch import refuse_launcher
from fedreid_pl.errors import FedReIDError

OPTIONS = ("groups", "jobs", "keep", "small", "results", "dry_run")


def study(words: list[str]) -> int:
    """Trains the missing runs of a study and appends one row per run to its CSV file."""
    refuse_launcher("study")
    options, rest = take(words, *OPTIONS)
    names = [word for word in rest if "=" not in word]
    if len(names) != 1:
        raise FedReIDError(
            f"study: {'give one name' if names else 'give its name'}, fedreid-pl study main [jobs=2] [small=true]"
        )
    from fedreid_pl.comparison.plan import read_jobs, read_switch

    jobs = read_jobs(options.get("jobs", "1"))
    small, keep, dry_run = (read_switch(name, options.get(name, "false")) for name in ("small", "keep", "dry_run"))
    from fedreid_pl.comparison.study_file import chosen_groups, read_study

    found = read_study(names[0], small)
    if "groups" in options:
        found = chosen_groups(found, options["groups"].replace(",", " ").split())
    work = Path("runs") / "study" / (found.name + "-small" * small)
    default = (
        work / "study.csv"
        if small
        else Path("results") / ("study.csv" if found.name == "main" else f"{found.name}.csv")
    )
    results = Path(os.path.expanduser(options["results"])) if options.get("results") else default
    from fedreid_pl.comparison.study import plan_study, run_study

    def folder(config: Config, words: Sequence[str]) -> Path:
        return work / run_folder(config, words).relative_to("runs")

    own = [word for word in rest if "=" in word]
    run_study(plan_study(found, own, jobs, results, work, keep, folder), dry_run)
    return 0
