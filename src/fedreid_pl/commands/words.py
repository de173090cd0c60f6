"""Helpers of all commands: read the words of a command line, choose the run folder, print to the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from fedreid_pl.config import Config, compose, differences, fingerprint
from fedreid_pl.config.launch import RANKS
from fedreid_pl.config.values import whole_number
from fedreid_pl.errors import FedReIDError, printable, visible

TRAINING = (
    *("rounds", "batch_size", "local_epochs", "local_steps", "optimizer_state", "clients_per_round", "min_clients"),
    *("client_timeout", "client_retries", "evaluate_every", "output_dir", "resume", "logger", "wandb", "optim", "loss"),
)
"""Keys, and sections of keys, that have no effect on the evaluation of a trained run."""


def run_folder(config: Config, words: Sequence[str]) -> Path:
    """Returns the run folder: `output_dir`, or `runs/DATA/EXP/seedN` with a suffix if words change other keys."""
    if config.output_dir:
        return Path(os.path.expanduser(config.output_dir))
    plain = compose([word for word in words if word.startswith(("exp=", "data="))])
    plain.seed = config.seed
    suffix = f"-{fingerprint(config)[:6]}" if differences(plain, config) else ""
    return Path("runs") / config.data.name / config.name / f"seed{config.seed}{suffix}"


def own_places(config: Config, words: Sequence[str]) -> Config:
    """Returns a run's configuration with the default cache folder and engine, unless the words set them.

    A saved configuration may come from another person. It must not choose a folder to write to or a cluster to join.
    """
    config.engine = compose([word for word in words if word.startswith(("engine=", "engine."))]).engine
    if not any(word.startswith("data.cache_dir=") for word in words):
        config.data.cache_dir = None
    return config


def refuse_training_keys(words: Sequence[str], command: str) -> None:
    """Checks that no word sets a key that only training reads, because the command evaluates a trained run.

    Raises:
        FedReIDError: for the first such word.
    """
    for word in words:
        if word.partition("=")[0].partition(".")[0] in TRAINING:
            raise FedReIDError(
                f"{printable(word)}: {command} evaluates a trained run, on which this key has no effect; remove it, "
                "or train a run with it"
            )


def take(words: Sequence[str], *names: str) -> tuple[dict[str, str], list[str]]:
    """Returns the values of the words `NAME=VALUE` with these names, and the other words in order.

    Raises:
        FedReIDError: for a word whose key is no configuration key and resembles one of the names.
    """
    known = [item.name for item in fields(Config)]
    for word in words:
        key, equals, _ = word.partition("=")
        near = get_close_matches(key, [*names, *known], n=1, cutoff=0.7) if equals and len(key) > 3 else []
        if key not in (*names, *known) and set(near) & set(names):
            raise FedReIDError(f"{printable(word)}: unknown key '{printable(key)}', did you mean '{near[0]}'?")
    options = {word.partition("=")[0]: word.partition("=")[2] for word in words if word.partition("=")[0] in names}
    return options, [word for word in words if word.partition("=")[0] not in names]


def take_log(words: Sequence[str]) -> tuple[bool, list[str]]:
    """Returns whether `log=json` is among the words, and the other words.

    Raises:
        FedReIDError: for another value.

    >>> take_log(["exp=fedpav", "log=json"])
    (True, ['exp=fedpav'])
    """
    values = [word.partition("=")[2] for word in words if word.startswith("log=")]
    if wrong := [value for value in values if value not in ("text", "json")]:
        raise FedReIDError(f"log={printable(wrong[0])}: must be text or json")
    return values[-1:] == ["json"], [word for word in words if not word.startswith("log=")]


def yes_or_no(key: str, text: str) -> bool:
    """Returns the boolean value of the text `true` or `false`; raises `FedReIDError` for any other text."""
    if text not in ("true", "false"):
        raise FedReIDError(f"{key}={text}: give true or false")
    return text == "true"


def number(key: str, text: str) -> int:
    """Returns a text as a whole number of at least 1; raises `FedReIDError` for any other text."""
    value = whole_number(text)
    if not value:
        raise FedReIDError(f"{key}={printable(text)}: give a whole number, 1 or more")
    return value


def check_extra(extra: str, *packages: str) -> None:
    """Checks that the packages of an optional extra are installed.

    Raises:
        FedReIDError: if a package is missing; the message states the command that installs it.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise FedReIDError(f"{extra}: needs {', '.join(missing)}; install with pip install 'fedreid-pl[{extra}]'")


def title(config: Config, round: int) -> str:
    """Returns the heading of a run's result table."""
    kind = " (synthetic data)" if config.data.synthetic else ""
    return f"{config.name} on {config.data.name}{kind}, seed {config.seed}, after round {round} of {config.rounds}"


def complain(text: str) -> None:
    """Prints a line to stderr, in the first process only."""
    if first_process():
        print(visible(text), file=sys.stderr, flush=True)


def first_process() -> bool:
    """Returns whether this process has rank 0 and therefore prints. Does not import torch."""
    return next((os.environ[name] for name in RANKS if name in os.environ), "0") == "0"


def folders_of(words: Sequence[str], command: str) -> tuple[list[Path], list[str]]:
    """Returns the folders among the words, written as FOLDER or `run=FOLDER`, and the other `key=value` words.

    Raises:
        FedReIDError: if the words contain no folder, or a folder that does not exist.
    """
    plain = [word for word in words if "=" not in word or Path(word).is_dir()]
    named = [word.partition("=")[2] for word in words if word not in plain and word.startswith("run=")]
    others = [word for word in words if word not in plain and not word.startswith("run=")]
    folders = list(
        {Path(os.path.expanduser(word)).resolve(): Path(os.path.expanduser(word)) for word in (*plain, *named)}.values()
    )
    if not folders:
        raise FedReIDError(f"{command}: give the folder of a run or of a comparison, fedreid-pl {command} FOLDER")
    for folder in folders:
        if not folder.is_dir():
            raise FedReIDError(f"{folder}: no such folder; give the folder of a run or of a comparison")
    return folders, others
