"""Checks names and mode of wandb before training starts. Imports no wandb."""

from __future__ import annotations

import os

from fedreid_pl.config import Config
from fedreid_pl.errors import FedReIDError, printable

FORBIDDEN, LONGEST = "/\\#?%:", 128
MODES = ("online", "offline", "disabled")


def project_name(config: Config) -> str:
    """Returns the wandb project of a run: by default one project per data configuration."""
    return config.wandb.project or os.environ.get("WANDB_PROJECT") or f"fedreid_pl-{config.data.name}"


def check_wandb_names(config: Config, used: bool = False) -> None:
    """Checks that wandb accepts the names of project and owner, and `WANDB_MODE`, if a run logs to wandb.

    Args:
        config: configuration of the run.
        used: whether the names are used in any case.

    Raises:
        FedReIDError: if a name or the mode is not valid; the message names the key or the variable.
    """
    if not used and config.logger != "wandb":
        return
    mode = os.environ.get("WANDB_MODE", "")
    if mode not in ("", *MODES):
        raise FedReIDError(f"WANDB_MODE={printable(mode)}: choose {', '.join(MODES[:-1])} or {MODES[-1]}")
    if not used and mode == "disabled":
        return
    project = "wandb.project" if config.wandb.project else "WANDB_PROJECT"
    project = (
        project if config.wandb.project or os.environ.get("WANDB_PROJECT") else "data.name gives the wandb project"
    )
    for key, name in ((project, project_name(config)), ("wandb.entity", config.wandb.entity or "")):
        if wrong := [mark for mark in name if mark in FORBIDDEN]:
            hint = f"; write wandb.entity={name.split('/')[0]} wandb.project=..." if wrong[0] == "/" else ""
            raise FedReIDError(
                f"{key}={printable(name)}: wandb does not allow '{wrong[0]}' in a name"
                f"{hint or '; choose another name'}{'' if used else ', or set logger=csv'}"
            )
        if len(name) > LONGEST:
            raise FedReIDError(
                f"{key}={printable(name)}: the name has {len(name)} characters, wandb allows at most {LONGEST}"
            )
