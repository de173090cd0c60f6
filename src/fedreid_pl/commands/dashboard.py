"""Implements `fedreid-pl dashboard`."""

from __future__ import annotations

import os
from pathlib import Path

from fedreid_pl.commands.words import take
from fedreid_pl.config import check_run_folder, compose, load_config
from fedreid_pl.errors import FedReIDError


def dashboard(words: list[str]) -> int:
    """Saves a wandb workspace that compares the runs of a project, or writes its definition to a file."""
    options, rest = take(words, "run", "out")
    folder = Path(os.path.expanduser(options["run"])) if options.get("run") else None
    if folder is None and not any(word.startswith("data=") for word in rest):
        hint = next((f"; write run={word}" for word in rest if "=" not in word), "")
        raise FedReIDError(f"dashboard: give a run of the project, run=FOLDER, or its data, data=NAME{hint}")
    if "out" in options and not Path(options["out"]).name:
        raise FedReIDError("dashboard: out= names no file, give out=FILE.json")
    if folder is not None:
        check_run_folder(folder, "run=")
    config = load_config(folder / "config.yaml", rest) if folder is not None else compose(rest)

    from fedreid_pl.reporting.dashboard import (
        build_workspace,
        names_of_data,
        names_of_run,
        save_workspace,
        write_workspace,
    )
    from fedreid_pl.reporting.wandb_names import check_wandb_names, project_name
    from fedreid_pl.reporting.wandb_run import default_entity, logged_in

    check_wandb_names(config, used=True)
    names = names_of_data(config) if folder is None else names_of_run(folder)
    project = project_name(config)
    entity = config.wandb.entity or os.environ.get("WANDB_ENTITY") or ""
    title = f"Federated ReID: {config.data.name}{' (synthetic data)' if config.data.synthetic else ''}"
    if "out" in options:
        path = Path(os.path.expanduser(options["out"]))
        write_workspace(build_workspace(names, project, entity, title), path)
        print(f"{path}: the workspace of {f'{entity}/' if entity else ''}{project}")
        return 0
    workspace = build_workspace(names, project, entity, title)
    if not logged_in():
        raise FedReIDError(
            "dashboard: not logged in to wandb; run `wandb login` first, or write a file with out=FILE.json"
        )
    workspace.entity = entity or default_entity()
    print(save_workspace(workspace))
    return 0
