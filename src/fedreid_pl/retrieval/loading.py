"""Loads the model of a run's folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedreid_pl.config import Config, check_run_folder, load_config
from fedreid_pl.errors import FedReIDError, nearest
from fedreid_pl.federation.client.store import ClientStore
from fedreid_pl.federation.server.checkpoint import check_models, read_checkpoint
from fedreid_pl.functional.fingerprint import fingerprint_of
from fedreid_pl.reporting.inspection import read_thresholds
from fedreid_pl.reporting.summary_file import read_summary
from fedreid_pl.resume import named_checkpoint
from fedreid_pl.retrieval.model import ModelCard, ReIDModel
from fedreid_pl.start import empty_backbone

State = dict[str, Tensor]


def load(
    run: str | Path,
    checkpoint: str | int = "last",
    client: str | None = None,
    device: str | torch.device = "cpu",
    network: str | None = None,
) -> ReIDModel:
    """Loads a trained model.

    Args:
        run: the folder of a run of `fedreid-pl train`.
        checkpoint: `"last"`, `"best"` (the best round according to the run), the number of a saved round, or the path
            of a checkpoint file.
        client: name of a client; `None` loads the global model. The model of a client is the one that it tests: the
            server's model for the client, with the entries that stay at the client (its own BatchNorm, or the whole
            backbone in standalone training).
        device: device of the model, for example `"cuda"`.
        network: import path `package.module:callable` of the run's network, if it is the user's own network. The path
            in a run's folder is not enough, because no code is imported on its authority.

    Raises:
        FedReIDError: if the folder is not a run folder, or has no such checkpoint, no such client, or no global model.
    """
    if not isinstance(run, str | os.PathLike):
        raise FedReIDError(f"run={run!r}: expected the path of a run folder")
    folder = Path(os.path.expanduser(run))
    check_run_folder(folder, hint="; give the folder of a run of fedreid-pl train")
    config = load_config(folder / "config.yaml", [] if network is None else [f"model.name={network}"])
    file = named_checkpoint(folder, checkpoint)
    state = read_checkpoint(file)
    backbone = empty_backbone(config)
    check_models(state["models"], backbone.state_dict())
    weights = _weights(folder, config, state, client)
    try:
        backbone.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:
        raise FedReIDError(f"{file}: the model does not fit the network that {folder}/config.yaml describes") from error
    card = ModelCard(
        experiment=config.name,
        data=config.data.name,
        synthetic=config.data.synthetic,
        backbone=config.model.name,
        seed=config.seed,
        round=state["round"],
        client=client,
        sha256=fingerprint_of(weights),
        height=config.data.height,
        width=config.data.width,
        dim=backbone.feature_dim,
    )
    whose = client if client is not None and not state["models"] else "global"
    entry = read_thresholds(folder, state["round"]).get(whose, {})
    return ReIDModel(backbone, card, device, entry.get("value"), entry.get("persons"))


def _weights(folder: Path, config: Config, state: dict[str, Any], client: str | None) -> State:
    """Returns the state dict of the requested model."""
    models: dict[str, State] = state["models"]
    assignment: dict[str, str] = state["assignment"]
    clients = _clients(folder)
    if client is None:
        if "global" not in models:
            kind = "one model per cluster" if models else "no model at the server, each client has its own"
            raise FedReIDError(f"{folder}: has {kind}; give client=NAME, one of {', '.join(clients)}")
        return models["global"]
    if client not in clients:
        raise FedReIDError(f"client={client}: no such client{nearest(client, clients)}")
    kept = ClientStore(folder / "clients", writable=False).load(client, state["round"] + 1) or {}
    if "backbone" in kept:
        whole: State = kept["backbone"]
        return whole
    model = assignment.get(client, "global")
    if model not in models:
        raise FedReIDError(f"client={client}: {folder} contains neither a model nor a state of this client")
    own = kept.get("callbacks", {}).get("backbone_sync", {}).get("own", {})
    return {**models[model], **own}


def _clients(folder: Path) -> list[str]:
    """Returns the names of the run's clients."""
    named = (read_summary(folder) or {}).get("clients") or {}
    stored = sorted(item.name for item in (folder / "clients").glob("*") if item.is_dir())
    return list(named) or stored
