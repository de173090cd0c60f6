"""Implements `fedreid-pl flower`."""

from __future__ import annotations

import os
from pathlib import Path

from fedreid_pl.commands.words import check_extra, take
from fedreid_pl.errors import FedReIDError

HELP = """\
fedreid-pl flower out=APP
    Writes the app that flwr run sends to a SuperLink, and prints the commands that start a federation with Flower.
    Each silo gives its folder to its SuperNode in --node-config. Create silos and the federation first, with
    fedreid-pl silo init and fedreid-pl federation init.
"""
NEXT = """\
Each silo:   flower-supernode --superlink HOST:PORT --root-certificates ca.crt --port 9094 \\
               --node-config 'silo-folder="/path/SILO" silo-words="data.root=/pictures"'
Coordinator: flwr run {app} SUPERLINK --stream \\
               --run-config 'federation="/path/FED" output-dir="/path/RUN" words="exp=fedpav_rw min_clients=2"'
Set FLWR_TELEMETRY_ENABLED=0 and FLWR_DISABLE_UPDATE_CHECK=1 for every process of Flower."""


def flower(words: list[str]) -> int:
    """Writes the app for `flwr run`."""
    if not words:
        print(HELP, end="")
        return 0
    options, rest = take(words, "out")
    if rest or set(options) != {"out"}:
        raise FedReIDError("flower: write fedreid-pl flower out=APP, a folder for the app that flwr run sends")
    from fedreid_pl.engines.silos.flower.package import write_package
    from fedreid_pl.engines.silos.flower.version import check_flower

    check_flower()
    check_extra("flower", "cryptography")
    folder = Path(os.path.expanduser(options["out"]))
    write_package(folder)
    print(f"app          {folder}")
    print(NEXT.format(app=folder))
    return 0
