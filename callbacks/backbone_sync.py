"""Federated partial averaging (FedPav): the backbone is exchanged and averaged, the head stays.

Zhuang et al., "Performance Optimization for Federated Person Re-identification via Benchmark Analysis",
ACM MM 2020, Algorithm 1. BatchNorm that stays at the client: Li et al., "FedBN", ICLR 2021.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pytorch_lightning as pl
import torch
from torch import nn

from fedreid_pl.config import Config
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.capabilities import Capability
from fedreid_pl.federation.messages import ClientJob, ClientUpdate, State
from fedreid_pl.federation.method import Method
from fedreid_pl.functional.aggregation import normalize_weights, weighted_average
from fedreid_pl.functional.randomness import generator
from fedreid_pl.models.batch_norm import recalibrate
from fedreid_pl.models.exchange import ALL, exchanged_names, exchanges_all
from fedreid_pl.models.weights import build_backbone, copied, copy_state

if TYPE_CHECKING:
    from fedreid_pl.federation.server.context import RoundContext

EVERYTHING, NOTHING = list(ALL), list[str]()


class BackboneSync(FederationCallback):
    """Sends each client its model, takes the trained backbones back, and averages them by number of images.

    Args:
        batch_norm: what becomes of BatchNorm. `average`: running statistics are averaged like parameters
            (counters become the maximum). `first`: they are those of the first client of an order drawn anew
            each round, which is what the published code does. `recalibrate`: averaged, then estimated anew on
            the public set. `local` (FedBN): BatchNorm's parameters and statistics never leave their client,
            which is evaluated with its own.
        exchange: patterns of the backbone's entries that travel, such as `trunk.*`; by default all of them. A group
            (`stem`, `stage1`, `stage2`, ..., `last_stage`, `neck`) is the same part of every backbone:
            `[last_stage, neck]` is LG-FedAvg.
        keep: patterns or groups of entries that stay at their client, whatever `exchange` says: `[last_stage, neck]`
            is FedPer. The classifier is no part of the backbone and never travels.
    """

    provides: ClassVar[tuple[Capability, ...]] = (
        "exchange",
        "average",
        "one_global_model",
        "weights",
        "server_step",
    )
    needs: ClassVar[tuple[Capability, ...]] = ()
    methods: ClassVar[Mapping[str, Method]] = {
        "fedpav": Method(
            title="FedPav",
            paper="Zhuang et al., ACM MM 2020, Algorithm 1",
            purpose="federation",
            does="averages the clients' backbones by their numbers of images; each client has a head of its own",
            verified="the average against a second writing, one client against plain SGD to the bit; the paper's data "
            "are not public in full, so its figures stand beside a run's where the datasets are there",
        ),
        "fedbn": Method(
            title="FedBN",
            paper="Li et al., ICLR 2021",
            purpose="personal models",
            does="keeps BatchNorm, its parameters and statistics, at the clients; an unseen place has none",
            exchanged="the backbone without BatchNorm",
            stays="the head; BatchNorm",
            verified="no entry of BatchNorm is in any message, and each client's own lasts",
        ),
        "fedper": Method(
            title="FedPer",
            paper="Arivazhagan et al., 2019",
            purpose="personal models",
            does="keeps the last stage and the neck at the clients; an unseen place has none",
            exchanged="the stem and the stages below the last one",
            stays="the head; the last stage; the neck",
            verified="which entries travel and that those which stay are averaged nowhere",
        ),
        "lg_fedavg": Method(
            title="LG-FedAvg",
            paper="Liang et al., 2020",
            purpose="personal models",
            does="keeps the stem and the lower stages at the clients; an unseen place has none",
            exchanged="the last stage and the neck",
            stays="the head; the stem; the stages below the last one",
            verified="which entries travel and that those which stay are averaged nowhere",
        ),
    }

    def __init__(
        self,
        batch_norm: Literal["average", "first", "recalibrate", "local"] = "average",
        exchange: list[str] = EVERYTHING,
        keep: list[str] = NOTHING,
    ) -> None:
        self.batch_norm = batch_norm
        self.exchange, self.keep = list(exchange), list(keep)
        self._whole = exchanges_all({"batch_norm": batch_norm, "exchange": exchange, "keep": keep})
        self._own: State = {}
        self._names: frozenset[str] | None = None

    def check(self, config: Config, data: FederatedData) -> None:
        """`recalibrate` needs public images, and every pattern has to match something."""
        if self.batch_norm == "recalibrate" and data.public is None:
            raise FedReIDError("callbacks.backbone_sync.batch_norm=recalibrate: needs a public set; set data.public")
        if not self._whole:
            size = (config.data.height, config.data.width)
            self.exchanged(build_backbone(replace(config.model, weights="none"), config.seed, size=size))

    def exchanged(self, network: nn.Module) -> frozenset[str]:
        """Names of the entries that travel."""
        if self._names is None:
            self._names = exchanged_names(network, self.exchange, self.keep, norms=self.batch_norm != "local")
        return self._names

    # server half

    def on_federation_start(self, federation: RoundContext) -> None:
        """The initial backbone becomes the global model."""
        federation.models["global"] = federation.initial_backbone
        if not self._whole:
            federation.exchanged = self.exchanged(federation.server.network())
        trunk = [name for name in federation.initial_backbone if name.startswith("trunk.")]
        if self.batch_norm != "average" and trunk and not any(name.endswith("running_mean") for name in trunk):
            federation.warn(
                f"the trunk has no BatchNorm: callbacks.backbone_sync.batch_norm={self.batch_norm} concerns the "
                "BatchNorm of the neck alone"
            )

    def on_distribute(self, federation: RoundContext, job: ClientJob) -> ClientJob:
        """Every client gets the model it is assigned to, the global one unless a callback says otherwise."""
        return job.exchanging(federation.travelling(federation.models[federation.model_of(job.client)]))

    def on_aggregation_start(
        self, federation: RoundContext, updates: Sequence[ClientUpdate], weights: dict[str, float]
    ) -> None:
        """p_k = n_k / sum n."""
        weights |= normalize_weights({update.client: update.num_samples for update in updates}) or {}

    def aggregate(
        self,
        federation: RoundContext,
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
            models[model] = {**federation.initial_backbone, **average}  # what is kept stays as it was
        return models

    def on_aggregation_end(self, federation: RoundContext, updates: Sequence[ClientUpdate]) -> None:
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
        if pl_module.job.kind == "evaluate":
            self._load(pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The entries that travel go into the update, the others stay."""
        copies = copied(pl_module.backbone.state_dict())
        sent = frozenset(pl_module.job.exchanged)
        self._own = {name: value for name, value in copies.items() if name not in sent}
        pl_module.outbox.backbone = {name: value for name, value in copies.items() if name in sent}

    def client_state_dict(self) -> dict[str, Any]:
        """The entries that stay at the client."""
        return {"own": self._own} if self._own else {}

    def load_client_state_dict(self, state: dict[str, Any]) -> None:
        """Takes them back."""
        self._own = state["own"]

    def _load(self, pl_module: pl.LightningModule) -> None:
        job = pl_module.job
        state = job.backbone
        if not self._whole:  # before its first turn, a client has the initial values of what it keeps
            own = {name: value for name, value in self._own.items() if name in self._kept(pl_module.backbone)}
            state = {**pl_module.backbone.state_dict(), **state, **own}
        copy_state(state, pl_module.backbone)

    def _kept(self, network: nn.Module) -> frozenset[str]:
        return frozenset(network.state_dict()) - self.exchanged(network)
