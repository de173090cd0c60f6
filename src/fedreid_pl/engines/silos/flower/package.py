"""Writes the app that `flwr run` sends to a SuperLink: small files that import this program."""

from __future__ import annotations

from pathlib import Path

from fedreid_pl.engines.silos.flower.version import FLOWER
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.storage import write_text

PROJECT = f"""\
# A federated experiment of fedreid_pl on a SuperLink:
#   flwr run . SUPERLINK --run-config 'federation="/FED" output-dir="/RUN" words="exp=fedpav_rw min_clients=2"'
# fedreid_pl has to be installed where the SuperLink and the SuperNodes run.
[project]
name = "fedreid-app"
version = "1.0.0"
description = "Federated person re-identification with fedreid_pl"
license = "Apache-2.0"
dependencies = ["flwr=={FLOWER}"]

[tool.flwr.app]
publisher = "fedreid-pl"

[tool.flwr.app.components]
serverapp = "fedreid_app.server:app"
clientapp = "fedreid_app.client:app"

[tool.flwr.app.config]
federation = ""   # the coordinator's folder, where the ServerApp runs
output-dir = ""   # of the run, where the ServerApp runs; a stopped run resumes from this folder
words = "exp=fedpav_rw min_clients=2"  # as for fedreid-pl train
"""
MODULE = """\
\"\"\"The {side} of a federated experiment; Flower starts it.\"\"\"

from fedreid_pl.flower_apps import make_{side}_app

app = make_{side}_app()
"""


def write_package(folder: Path) -> None:
    """Writes the app into a new folder, or into a folder that contains only an earlier version of the app.

    Raises:
        FedReIDError: if the folder contains other files, or cannot be written.
    """
    files = {"pyproject.toml": PROJECT, "fedreid_app/__init__.py": '"""An experiment of fedreid_pl on Flower."""\n'}
    files |= {f"fedreid_app/{side}.py": MODULE.format(side=side) for side in ("server", "client")}
    try:
        (folder / "fedreid_app").mkdir(parents=True, exist_ok=True)
        found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        if other := sorted(name for name in found - set(files) if "__pycache__" not in name):
            raise FedReIDError(f"out={folder}: contains other files ({other[0]}); choose a separate folder")
    except OSError as error:
        raise FedReIDError(f"out={folder}: cannot be created ({error.strerror})") from error
    for name, text in files.items():
        write_text(folder / name, text)
