"""Defines the apps that Flower starts: a ServerApp runs the federation loop, a ClientApp calls a silo's service."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedreid_pl.engines.silos.flower.version import check_flower
from fedreid_pl.errors import FedReIDError


def make_server_app() -> Any:
    """Returns the `flwr.serverapp.ServerApp` of an experiment.

    Raises:
        FedReIDError: if the installed version of Flower is not the tested version.
    """
    check_flower()
    from flwr.app import Context
    from flwr.serverapp import Grid, ServerApp

    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        run_experiment(grid, context.run_config)

    return app


def make_client_app() -> Any:
    """Returns the `flwr.clientapp.ClientApp` of a silo.

    Raises:
        FedReIDError: if the installed version of Flower is not the tested version.
    """
    check_flower()
    from flwr.app import Context, Message
    from flwr.clientapp import ClientApp

    from fedreid_pl.engines.silos.flower.client import answer_payload, answer_question, guarded
    from fedreid_pl.engines.silos.flower.post import INTRODUCE, PAYLOAD, parcel_of, record_of
    from fedreid_pl.reporting.terminal import say

    app = ClientApp()

    @app.query(INTRODUCE)
    def introduce(message: Message, context: Context) -> Message:
        place = (context.node_id, context.node_config)
        found = guarded(lambda: answer_question(parcel_of(message.content), *place), say)
        return Message(record_of(found), reply_to=message)

    @app.query(PAYLOAD)
    def payload(message: Message, context: Context) -> Message:
        found = guarded(lambda: answer_payload(parcel_of(message.content), context.node_config, say), say)
        return Message(record_of(found), reply_to=message)

    return app


def run_experiment(grid: Any, run_config: Mapping[str, Any]) -> None:
    """Runs an experiment over the silos of a federation.

    Args:
        grid: `flwr.serverapp.Grid`.
        run_config: `federation` and `output-dir`, two folders on this machine, and `words`, the arguments of
            `fedreid-pl train`.

    Raises:
        FedReIDError: for every error that a user can correct.
    """
    from fedreid_pl.commands.train import show_result
    from fedreid_pl.config import compose
    from fedreid_pl.coordination import coordinate
    from fedreid_pl.engines.silos.flower.post import GridPost
    from fedreid_pl.engines.silos.flower.transport import FlowerTransport
    from fedreid_pl.reporting.terminal import say

    config, folder = compose(words_of(run_config)), Path(str(run_config["output-dir"])).expanduser()
    loop = coordinate(
        config, folder, lambda federation: FlowerTransport(federation, GridPost(grid), folder / "arrived", say)
    )
    show_result(config, folder, loop)


def words_of(run_config: Mapping[str, Any]) -> list[str]:
    """Returns the arguments of `fedreid-pl train` that correspond to the settings of a Flower run.

    Raises:
        FedReIDError: if a folder is missing or is not an absolute path.

    >>> words_of({"federation": "/fed", "output-dir": "/run", "words": "exp=fedpav_rw rounds=2"})
    ['exp=fedpav_rw', 'rounds=2', 'engine=silos', 'federation=/fed', 'output_dir=/run']
    """
    for key in ("federation", "output-dir"):
        path = Path(str(run_config.get(key, ""))).expanduser()
        if not path.is_absolute():  # Flower chooses the working folder of the app
            raise FedReIDError(f"run-config {key}={path}: give an absolute path, --run-config '{key}=\"/path\"'")
    places = [f"federation={run_config['federation']}", f"output_dir={run_config['output-dir']}"]
    return [*shlex.split(str(run_config.get("words", ""))), "engine=silos", *places]
