"""The models of a run on datasets that none of its clients has: how well they transfer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from fedreid_pl.callbacks import callback_factory
from fedreid_pl.config import Config
from fedreid_pl.data.federated import VALIDATION, FederatedData
from fedreid_pl.data.scenarios import load_federated_data
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.client.store import ClientStore
from fedreid_pl.federation.client.trainer import check_devices, launch, quiet
from fedreid_pl.federation.client.worker import ClientWorker
from fedreid_pl.federation.messages import ClientJob, State
from fedreid_pl.federation.precision import resolve_precision
from fedreid_pl.models.weights import build_backbone
from fedreid_pl.parts import build_parts
from fedreid_pl.reporting.run_folder import read_summary
from fedreid_pl.reporting.tables import TransferScores


class TrainedModel(NamedTuple):
    """One model of a run: what the server holds of it, and what a client keeps if it is a client's own."""

    name: str
    backbone: State
    kept: dict[str, Any]


def trains_on(folder: Path, data: FederatedData) -> bool:
    """Whether all clients of `data` are clients of the run in `folder`."""
    return set(data.clients) <= set(_clients(folder))


def transfer(
    config: Config, data: FederatedData, folder: Path, checkpoint: dict[str, Any], splits: Sequence[int] = ()
) -> list[TransferScores]:
    """Scores the models of a checkpoint on every test set of `data`, whose clients are not the run's.

    A run with one global model has one row per test set; under client clustering every cluster has, and without a
    model at the server, or with BatchNorm that stays at the clients, every client. No head is used, nothing is
    written. With `splits` the data are read again for every one of these numbers of `data.split`.

    Raises:
        FedReIDError: if the run holds no model, or `splits` are given and the datasets have one split.
    """
    quiet()
    config = resolve_precision(config)
    check_devices(config)
    models = trained_models(config, folder, checkpoint)
    readings = _read_splits(config, data, splits)
    trainer = launch(config)
    scores: dict[tuple[str, str], dict[str, list[float]]] = {}
    for part, sets in readings:
        backbone = build_backbone(config.model, config.seed)
        worker = build_parts(part, sets, backbone, folder, trainer, callback_factory(config.callbacks), False).worker
        for model in models:
            for test, metric, value in _scores(worker, model, sets, checkpoint["round"]):
                scores.setdefault((model.name, test), {}).setdefault(metric, []).append(value)
    return [TransferScores(model, test, metrics) for (model, test), metrics in scores.items()]


def trained_models(config: Config, folder: Path, checkpoint: dict[str, Any]) -> list[TrainedModel]:
    """The models that `transfer` scores.

    Raises:
        FedReIDError: if there is none.
    """
    models, assignment = checkpoint["models"], checkpoint["assignment"]
    personal = config.callbacks.get("backbone_sync", {}).get("batch_norm") == "local"
    if models and not personal:
        return [TrainedModel(name, state, {}) for name, state in models.items()]
    store = ClientStore(folder / "clients", writable=False)
    found = []
    for client in _clients(folder):
        kept = store.load(client, checkpoint["round"] + 1)
        if kept is not None:
            state = {part: value for part, value in kept.items() if part != "head"}
            found.append(TrainedModel(client, models.get(assignment.get(client, "global"), {}), state))
    if not found:
        raise FedReIDError(f"{folder}: holds no model of a client; give the folder of a run that has trained")
    return found


class _OneState(ClientStore):
    """Gives every client the same state."""

    def __init__(self, folder: Path, kept: dict[str, Any]) -> None:
        super().__init__(folder, writable=False)
        self.kept = kept

    def load(self, client: str, before: int) -> dict[str, Any] | None:
        return self.kept


def _scores(
    worker: ClientWorker, model: TrainedModel, data: FederatedData, round: int
) -> Iterator[tuple[str, str, float]]:
    """(test set, metric, value) of one model, each set once."""
    worker.store = _OneState(worker.store.folder, model.kept)
    done: set[str] = set()
    for client in data.clients.values():
        tests = [test for test in client.tests if test not in done and not test.startswith(VALIDATION)]
        if tests:
            done |= set(tests)
            yield from worker.evaluate(
                ClientJob(round, client.name, model.backbone, {"tests": "/".join(tests)})
            ).scores()


def _read_splits(config: Config, data: FederatedData, splits: Sequence[int]) -> list[tuple[Config, FederatedData]]:
    if not splits:
        return [(config, data)]
    parts = [replace(config, data=replace(config.data, split=split)) for split in splits]
    readings = [(part, load_federated_data(part.data)) for part in parts]
    if len(readings) > 1 and readings[0][1].digests == readings[1][1].digests:
        raise FedReIDError(f"splits={len(splits)}: {', '.join(data.tests)} has one split only")
    return readings


def _clients(folder: Path) -> list[str]:
    """Names of a run's clients, in the order of its configuration if the run has come to a summary."""
    clients = (read_summary(folder) or {}).get("clients")
    if isinstance(clients, dict):
        return list(clients)
    kept = folder / "clients"
    return sorted(item.name for item in kept.iterdir()) if kept.is_dir() else []
