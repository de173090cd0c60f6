"""Implements `fedreid-pl train`."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fedreid_pl.commands.words import check_extra, run_folder, take, take_log, title
from fedreid_pl.config import Config, compose
from fedreid_pl.config.launch import check_launch
from fedreid_pl.errors import FedReIDError

if TYPE_CHECKING:
    from fedreid_pl.federation.server.loop import FederationLoop

PATIENCE = 60.0  # seconds that the other processes wait for the first process to write summary.json


def train(words: list[str]) -> int:
    """Runs an experiment and prints its result table. With `dry_run=true`, only checks it and prints the plan."""
    as_json, words = take_log(words)
    options, words = take(words, "dry_run")
    dry = options.get("dry_run", "false")
    if dry not in ("true", "false"):
        raise FedReIDError(f"dry_run={dry}: must be true or false")
    config = compose(words)
    check_launch(config)
    folder = run_folder(config, words)
    # torchmetrics imports matplotlib, which warns if there is no home folder
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    if dry == "true":
        print(_dry_run(config, folder))
        return 0
    if as_json:
        return _log_of_coordinator(config, folder)
    show_result(config, folder, _runner(config)(config, folder))
    return 0


def show_result(config: Config, folder: Path, loop: FederationLoop) -> None:
    """Prints the result table of a finished run.

    Raises:
        FedReIDError: if the run folder contains no summary.json.
    """
    from fedreid_pl.reporting.logger_observer import LoggerObserver
    from fedreid_pl.reporting.run_folder import build_summary, find_standalone
    from fedreid_pl.reporting.tables import UNSEEN, result_table, unseen_table
    from fedreid_pl.reporting.terminal import columns, fill
    from fedreid_pl.reporting.where_next import where_next, where_next_text

    _check_summary(folder, 0.0 if loop.observers else PATIENCE)
    if not loop.observers:
        return
    width = columns(sys.stdout)
    summary = build_summary(loop.context)
    standalone = None if config.name == "local" else find_standalone(loop.context.config, folder)
    print(f"\n{fill(title(loop.context.config, loop.context.round), width)}\n")
    print(result_table(summary, standalone, width))
    if unseen := unseen_table(summary, width):
        print(f"\n{unseen}\n\n{fill(UNSEEN, width)}")
    print(f"\n{fill('Rank-1 (R1) and mAP in percent. Where to look next:', width)}\n")
    url = next((observer.url for observer in loop.observers if isinstance(observer, LoggerObserver)), None)
    print(where_next_text(where_next(config, folder, url), width))


def _runner(config: Config) -> Callable[[Config, Path], FederationLoop]:
    """Returns the function that runs the experiment. Imports torch only here, after the words are checked."""
    if config.engine.name != "silos":
        from fedreid_pl.experiment import train as run

        return run
    check_extra("silos", "cryptography", "grpc")
    from fedreid_pl.coordination import coordinate
    from fedreid_pl.engines.silos.grpc_server import open_server

    return lambda config, folder: coordinate(config, folder, open_server)


def _log_of_coordinator(config: Config, folder: Path) -> int:
    """Runs an experiment over silos with events on stderr, one JSON object a line, and no table."""
    if config.engine.name != "silos":
        raise FedReIDError("log=json: is for engine=silos and fedreid-pl silo run; leave it out")
    check_extra("silos", "cryptography", "grpc")
    from fedreid_pl.coordination import coordinate, open_federation
    from fedreid_pl.engines.silos.grpc_server import open_server
    from fedreid_pl.engines.silos.log_lines import JsonLog, logged

    federation = open_federation(config)
    events = JsonLog(federation.number)
    return logged(events, federation.path, lambda: coordinate(config, folder, open_server, events))


def _dry_run(config: Config, folder: Path) -> str:
    if config.engine.name != "silos":
        from fedreid_pl.dry_run import dry_run

        return dry_run(config, folder)
    check_extra("silos", "cryptography", "grpc")
    from fedreid_pl.coordination import dry_run_of_silos

    return dry_run_of_silos(config, folder)


def _check_summary(folder: Path, patience: float) -> None:
    """Raises an error if a run ended without summary.json, because exit code 0 promises this file."""
    limit = time.monotonic() + patience
    while not (folder / "summary.json").is_file():
        if time.monotonic() >= limit:
            raise FedReIDError(f"{folder}: the run ended without summary.json; repeat the command")
        time.sleep(0.1)
