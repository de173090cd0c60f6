"""Federated partial averaging (FedPav): the backbone is exchanged and averaged, the head stays.

Zhuang et al., "Performance Optimization for Federated Person Re-identification via Benchmark Analysis",
ACM MM 2020, Algorithm 1. BatchNorm that stays at the client: Li et al., "FedBN", ICLR 2021.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import pytorch_lightning as pl
import torch

from fedreid_pl.config import Config
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.capabilities import Capability
from fedreid_pl.federation.messages import ClientJob, ClientUpdate, State
from fedreid_pl.federation.server.loop import FederationLoop
from fedreid_pl.functional.aggregation import normalize_weights, weighted_average
from fedreid_pl.functional.randomness import generator
from fedreid_pl.models.batch_norm import norm_names, recalibrate
from fedreid_pl.models.weights import copy_state


class BackboneSync(FederationCallback):
    """Sends each client its model, takes the trained backbones back, and averages them by number of images.

    Args:
        batch_norm: what becomes of BatchNorm. `average`: running statistics are averaged like parameters
            (counters become the maximum). `first`: they are those of the first client of an order drawn anew
            each round, which is what the published code does. `recalibrate`: averaged, then estimated anew on
            the public set. `local` (FedBN): BatchNorm's parameters and statistics never leave their client,
            which is evaluated with its own.
    """

    provides: ClassVar[tuple[Capability, ...]] = (
        "exchange",
        "average",
        "one_global_model",
        "weights",
        "server_step",
    )
    needs: ClassVar[tuple[Capability, ...]] = ()

    def __init__(self, batch_norm: Literal["average", "first", "recalibrate", "local"] = "average") -> None:
        self.batch_norm = batch_norm
        self._own: State = {}

    def check(self, config: Config, data: FederatedData) -> None:
        """`recalibrate` needs public images."""
        if self.batch_norm == "recalibrate" and data.public is None:
            raise FedReIDError("callbacks.backbone_sync.batch_norm=recalibrate: needs a public set; set data.public")

    # server half

    def on_federation_start(self, federation: FederationLoop) -> None:
        """The initial backbone becomes the global model."""
        federation.models["global"] = federation.initial_backbone

    def on_distribute(self, federation: FederationLoop, job: ClientJob) -> ClientJob:
        """Every client gets the model it is assigned to, the global one unless a callback says otherwise."""
        backbone = federation.models[federation.model_of(job.client)]
        if self.batch_norm == "local":
            own = norm_names(federation.server.network())
            backbone = {name: value for name, value in backbone.items() if name not in own}
        return replace(job, backbone=backbone)

    def on_aggregation_start(
        self, federation: FederationLoop, updates: Sequence[ClientUpdate], weights: dict[str, float]
    ) -> None:
        """p_k = n_k / sum n."""
        weights |= normalize_weights({update.client: update.num_samples for update in updates}) or {}

    def aggregate(
        self,
        federation: FederationLoop,
        updates: Sequence[ClientUpdate],
        weights: Mapping[str, float],
        models: dict[str, State],
    ) -> dict[str, State]:
        """w = sum_k p_k w_k over the clients that share a model."""
        members: dict[str, list[ClientUpdate]] = {}
        for update in updates:
            members.setdefault(federation.model_of(update.client), []).append(update)
        draws = generator(federation.seed, federation.round, "batch_norm")
        for model, group in members.items():
            source = None
            if self.batch_norm == "first":
                source = group[int(torch.randint(len(group), (), generator=draws))].client
            states = ((update.client, update.backbone) for update in group)
            average = weighted_average(states, weights, federation.buffer_names, source)
            models[model] = {**federation.initial_backbone, **average}  # FedBN's updates hold no BatchNorm
        return models

    def on_aggregation_end(self, federation: FederationLoop, updates: Sequence[ClientUpdate]) -> None:
        """Under `recalibrate`, new running statistics for every model."""
        if self.batch_norm != "recalibrate":
            return
        server = federation.server
        for model, state in federation.models.items():
            network = server.network()
            network.load_state_dict(state)
            recalibrate(network, server.batches(federation.config.data.test_batch_size))
            federation.models[model] = server.agree(network.state_dict())

    # client half

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The lent backbone becomes the model that the server sent."""
        self._load(pl_module)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A job that only evaluates starts here; after training the local model is left as it is."""
        if not pl_module.outbox.backbone:
            self._load(pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The trained backbone goes into the update, without BatchNorm if that stays."""
        state: dict[str, Any] = pl_module.backbone.state_dict()
        copies = {name: value.detach().to("cpu", copy=True) for name, value in state.items()}
        kept = norm_names(pl_module.backbone) if self.batch_norm == "local" else frozenset()
        self._own = {name: value for name, value in copies.items() if name in kept}
        pl_module.outbox.backbone = {name: value for name, value in copies.items() if name not in kept}

    def client_state_dict(self) -> dict[str, Any]:
        """The client's own BatchNorm."""
        return {"own": self._own} if self._own else {}

    def load_client_state_dict(self, state: dict[str, Any]) -> None:
        """Takes the client's own BatchNorm back."""
        self._own = state["own"]

    def _load(self, pl_module: pl.LightningModule) -> None:
        state = pl_module.job.backbone
        if self.batch_norm == "local":  # before its first turn, a client has the initial BatchNorm
            state = {**pl_module.backbone.state_dict(), **state, **self._own}
        copy_state(state, pl_module.backbone)
