"""Evaluates the models of a run on datasets of none of its clients, to measure how well the models transfer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from fedreid_pl.callbacks import callback_factory
from fedreid_pl.clients import build_parts
from fedreid_pl.config import Config
from fedreid_pl.data.federated import VALIDATION, FederatedData
from fedreid_pl.data.scenarios import load_federated_data
from fedreid_pl.engines import EngineParts, build_engine, check_engine, on_driver, trains_here
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.client.store import ClientStore
from fedreid_pl.federation.client.trainer import check_devices, launch, quiet
from fedreid_pl.federation.client.worker import Look
from fedreid_pl.federation.engine import Engine
from fedreid_pl.federation.messages import ClientJob, ClientUpdate, Plain, State
from fedreid_pl.federation.precision import resolve_precision
from fedreid_pl.federation.server.answers import in_job_order
from fedreid_pl.inspection.open_set import open_set_entry
from fedreid_pl.models.exchange import exchanges_all
from fedreid_pl.reporting.inspection import read_thresholds
from fedreid_pl.reporting.summary_file import read_summary
from fedreid_pl.reporting.tables import TransferScores
from fedreid_pl.reporting.terminal import say
from fedreid_pl.start import initial_backbone

LOAD_WHOLE: dict[str, dict[str, Any]] = {"backbone_sync": {}}
"""Callbacks of the evaluation: the client loads the whole backbone that the server sends, for any method of the run."""


class TrainedModel(NamedTuple):
    """Names a model of a run, with the entries of its backbone that differ from the initial weights."""

    name: str
    backbone: State


def trains_on(folder: Path, data: FederatedData) -> bool:
    """Returns whether all clients of `data` are clients of the run in `folder`."""
    return set(data.clients) <= set(_clients(folder))


def transfer(
    config: Config, data: FederatedData, folder: Path, checkpoint: dict[str, Any], splits: Sequence[int] = ()
) -> list[TransferScores]:
    """Returns the scores of a checkpoint's models on every test set of `data`. The run has other clients than `data`.

    A run with one global model has one row per test set. With client clustering, every cluster has one row per test
    set. If the server has no model, or BatchNorm stays at the clients, every client has one row per test set.
    Evaluation uses no head and writes no files.

    Every row also contains the open-set measures of `inspection.open_set.open_set_entry` at the calibrated threshold
    of the run. With `report.rerank` it contains the scores after re-ranking, `reranked_NAME`.

    Args:
        config: configuration of the run, with the data of the evaluation.
        data: the data of the evaluation.
        folder: folder of the run.
        checkpoint: content of the checkpoint.
        splits: values of `data.split`; the function reads the data again for each of them. Empty: `data` only.

    Raises:
        FedReIDError: if the run has no model, or the datasets have only one split and `splits` has several.
    """
    quiet()
    config = resolve_precision(config)
    check_engine(config)
    check_devices(on_driver(config))
    models = trained_models(config, folder, checkpoint)
    readings = _read_splits(config, data, splits)
    trainer = launch(on_driver(config))
    scores: dict[tuple[str, str], dict[str, list[float]]] = {}
    thresholds = read_thresholds(folder, checkpoint["round"])
    looks: list[Look] = []
    for part, sets in readings:
        backbone = initial_backbone(config)
        make_callbacks = callback_factory(LOAD_WHOLE)
        share = int(trains_here(config))
        parts = build_parts(part, sets, backbone, folder, trainer, make_callbacks, writable=False, share=share)
        engine = build_engine(
            EngineParts(part, folder, parts.worker, _ignore, looks.append, trainer.world_size, data=parts.data)
        )
        with closing(engine):
            for model in models:
                whole = {**parts.worker.initial, **model.backbone}
                found = list(_scores(engine, whole, sets, checkpoint["round"]))
                for test, metric, value in [*found, *_behind(looks, model.name, thresholds)]:
                    scores.setdefault((model.name, test), {}).setdefault(metric, []).append(value)
    return [TransferScores(model, test, metrics) for (model, test), metrics in scores.items()]


def trained_models(config: Config, folder: Path, checkpoint: dict[str, Any]) -> list[TrainedModel]:
    """Returns the models that `transfer` evaluates.

    Raises:
        FedReIDError: if the run has no model.
    """
    models, assignment = checkpoint["models"], checkpoint["assignment"]
    if models and exchanges_all(config.callbacks.get("backbone_sync", {})):
        return [TrainedModel(name, state) for name, state in models.items()]
    store = ClientStore(folder / "clients", writable=False)
    found = []
    for client in _clients(folder):
        kept = store.load(client, checkpoint["round"] + 1)
        if kept is not None:
            own = kept.get("callbacks", {}).get("backbone_sync", {}).get("own", {})
            shared = models.get(assignment.get(client, "global"), {})
            found.append(TrainedModel(client, {**kept.get("backbone", {}), **shared, **own}))
    if not found:
        raise FedReIDError(f"{folder}: contains no model of a client; give a run with a trained round")
    return found


def _scores(engine: Engine, backbone: State, data: FederatedData, round: int) -> Iterator[tuple[str, str, float]]:
    """Yields (test set, metric, value) of one model, each test set once.

    Raises:
        FedReIDError: if a test set cannot be evaluated.
    """
    jobs, done = [], set[str]()
    for client in data.clients.values():
        tests = [test for test in client.tests if test not in done and not test.startswith(VALIDATION)]
        if tests:
            done |= set(tests)
            config: dict[str, Plain] = {"tests": "/".join(tests), "starts_from": 0, "inspect": True}
            jobs.append(ClientJob("evaluate", "transfer", round, 1, client.name, config=config).exchanging(backbone))
    for job, outcome in in_job_order(engine.evaluate, jobs, lambda job, outcome: outcome):
        if not isinstance(outcome, ClientUpdate):
            reason = f" ({outcome.reason}: {outcome.detail})" if outcome is not None else ""
            raise FedReIDError(f"{job.config['tests']}: cannot be evaluated{reason}")
        yield from outcome.scores()


def _behind(looks: list[Look], model: str, thresholds: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    """Yields (test set, metric, value) of the open-set measures and re-ranked scores of one model; empties the list."""
    while looks:
        look = {**looks.pop(0), "model": model}
        if "problem" in look:
            say(f"warning: {look['problem']}")
            continue
        for metric, value in open_set_entry(look, thresholds).items():
            if value is not None:
                yield look["test"], metric, value
        for metric, value in look["reranked"].items():
            yield look["test"], f"reranked_{metric}", value


def _ignore(unused: object) -> None:
    """Does nothing, because these jobs have no observer."""


def _read_splits(config: Config, data: FederatedData, splits: Sequence[int]) -> list[tuple[Config, FederatedData]]:
    if not splits:
        return [(config, data)]
    parts = [replace(config, data=replace(config.data, split=split)) for split in splits]
    readings = [(part, load_federated_data(part.data)) for part in parts]
    if len(readings) > 1 and readings[0][1].digests == readings[1][1].digests:
        raise FedReIDError(f"splits={len(splits)}: {', '.join(data.tests)} has only one split; remove splits=")
    return readings


def _clients(folder: Path) -> list[str]:
    """Returns the names of the run's clients; in the order of the configuration if the run has a summary."""
    clients = (read_summary(folder) or {}).get("clients")
    if isinstance(clients, dict):
        return list(clients)
    kept = folder / "clients"
    return sorted(item.name for item in kept.iterdir()) if kept.is_dir() else []
