"""Implements `fedreid-pl report`."""

from __future__ import annotations

import os
from pathlib import Path

from fedreid_pl.commands.words import complain, first_process, folders_of, own_places, refuse_training_keys, take
from fedreid_pl.config import load_config
from fedreid_pl.config.launch import check_launch
from fedreid_pl.errors import FedReIDError, counted


def report(words: list[str]) -> int:
    """Writes an HTML report of one run, several runs or a comparison; evaluates a run again if words change it."""
    options, rest = take(words, "out")
    folders, settings = folders_of(rest, "report")
    if settings and (len(folders) > 1 or not (folders[0] / "config.yaml").is_file()):
        raise FedReIDError(f"{settings[0]}: applies to a single run only; give one folder with a config.yaml")
    refuse_training_keys(settings, "report")
    if settings:
        _inspect(folders[0], settings)
    if not first_process():  # the other processes only take part in the evaluation
        return 0
    from fedreid_pl.comparison.report import report_of
    from fedreid_pl.reporting.html.report import NAME, write_report

    made = report_of(folders)
    default = folders[0] / NAME if len(folders) == 1 else Path(NAME)
    path = write_report(made, Path(os.path.expanduser(options["out"])) if options.get("out") else default)
    print(f"{counted(len(made.runs), 'run')}, report in {path}")
    for name in made.missing:
        complain(f"warning: {name} is missing")
    return 0


def _inspect(folder: Path, settings: list[str]) -> None:
    """Evaluates the run's last checkpoint again, with the configuration changed by these words."""
    config = own_places(load_config(folder / "config.yaml", settings), settings)
    check_launch(config)
    before = load_config(folder / "config.yaml")
    from fedreid_pl.experiment import inspect_run

    inspect_run(config, before, folder)
