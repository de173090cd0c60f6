"""Federated partial averaging (FedPav): the backbone is exchanged and averaged, the head stays.

Zhuang et al., "Performance Optimization for Federated Person Re-identification via Benchmark Analysis",
ACM MM 2020, Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import pytorch_lightning as pl
import torch

from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.loop import FederationLoop
from fedreid_pl.federation.messages import ClientJob, ClientUpdate, State
from fedreid_pl.functional.aggregation import normalize_weights, weighted_average
from fedreid_pl.functional.randomness import generator


class BackboneSync(FederationCallback):
    """Sends the global backbone out, takes the trained ones back, and averages them by number of images.

    Args:
        batch_norm: what becomes of BatchNorm's running statistics: `average` them like parameters (counters
            become the maximum), or take them from the `first` client of an order drawn anew each round, which
            is what the published code does.
    """

    def __init__(self, batch_norm: Literal["average", "first"] = "average") -> None:
        self.batch_norm = batch_norm

    # server half

    def on_federation_start(self, federation: FederationLoop) -> None:
        """The initial backbone becomes the global model."""
        federation.models["global"] = federation.initial_backbone

    def on_distribute(self, federation: FederationLoop, job: ClientJob) -> ClientJob:
        """Every client gets the model it is assigned to, the global one unless a callback says otherwise."""
        return replace(job, backbone=federation.models[federation.model_of(job.client)])

    def on_aggregation_start(
        self, federation: FederationLoop, updates: Sequence[ClientUpdate], weights: dict[str, float]
    ) -> None:
        """p_k = n_k / sum n."""
        weights |= normalize_weights({update.client: update.num_samples for update in updates}) or {}

    def aggregate(
        self, federation: FederationLoop, updates: Sequence[ClientUpdate], weights: Mapping[str, float]
    ) -> dict[str, State] | None:
        """w = sum_k p_k w_k."""
        source = None
        if self.batch_norm == "first":
            pick = torch.randint(len(updates), (), generator=generator(federation.seed, federation.round, "batch_norm"))
            source = updates[int(pick)].client
        states = ((update.client, update.backbone) for update in updates)
        return {"global": weighted_average(states, weights, federation.buffer_names, source)}

    # client half

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The lent backbone becomes the model that the server sent."""
        _load(pl_module)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A job that only evaluates starts here; after training the local model is left as it is."""
        if not pl_module.outbox.backbone:
            _load(pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The trained backbone goes into the update."""
        state: dict[str, Any] = pl_module.backbone.state_dict()
        pl_module.outbox.backbone = {name: value.detach().to("cpu", copy=True) for name, value in state.items()}


def _load(pl_module: pl.LightningModule) -> None:
    pl_module.backbone.load_state_dict(pl_module.job.backbone)
