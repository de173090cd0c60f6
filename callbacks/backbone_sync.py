"""Federated partial averaging (FedPav): server and clients exchange the backbone; every client keeps its head.

Zhuang et al., "Performance Optimization for Federated Person Re-identification via Benchmark Analysis", ACM MM 2020,
Algorithm 1. With `batch_norm=local`: Li et al., "FedBN", ICLR 2021.
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
    """Sends every client its model, receives the trained backbones, and averages them by number of images.

    Args:
        batch_norm: what happens to BatchNorm. `average`: running statistics are averaged like parameters, and counters
            become the maximum over the clients. `first`: running statistics are those of one client, drawn anew in
            every round, as in the published code. `recalibrate`: running statistics are averaged and then estimated
            again on the public set. `local` (FedBN): parameters and statistics of BatchNorm never leave a client, and
            every client is evaluated with its own.
        exchange: patterns of the backbone's entries that are exchanged, such as `trunk.*`. The default exchanges all
            entries. A group name (`stem`, `stage1`, `stage2`, ..., `last_stage`, `neck`) is the same part of every
            backbone: `[last_stage, neck]` is LG-FedAvg.
        keep: patterns or groups of entries that stay at the client; they take precedence over `exchange`. `[last_stage,
            neck]` is FedPer. The classifier is not part of the backbone and is never exchanged.
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
            does="averages the clients' backbones, weighted by number of images; every client has its own head",
            verified="the average is compared with an independent implementation; training of one client equals plain "
            "SGD bit for bit; part of the paper's data is not public, so the paper's figures are only shown next to a "
            "run on the same datasets",
            saved="no callback state",  # BackboneSync saves entries only for methods that keep some at the client
        ),
        "fedbn": Method(
            title="FedBN",
            paper="Li et al., ICLR 2021",
            purpose="personal models",
            does="keeps the parameters and statistics of BatchNorm at the clients; no BatchNorm is available for an "
            "unseen place",
            exchanged="the backbone without BatchNorm",
            stays="the head; BatchNorm",
            verified="no message contains an entry of BatchNorm; every client keeps its own entries over the rounds",
        ),
        "fedper": Method(
            title="FedPer",
            paper="Arivazhagan et al., 2019",
            purpose="personal models",
            does="keeps the last stage and the neck at the clients; neither is available for an unseen place",
            exchanged="the stem and the stages below the last one",
            stays="the head; the last stage; the neck",
            verified="messages contain only the exchanged entries, and the server never averages the other entries",
        ),
        "lg_fedavg": Method(
            title="LG-FedAvg",
            paper="Liang et al., 2020",
            purpose="personal models",
            does="keeps the stem and the lower stages at the clients; neither is available for an unseen place",
            exchanged="the last stage and the neck",
            stays="the head; the stem; the stages below the last one",
            verified="messages contain only the exchanged entries, and the server never averages the other entries",
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
        """Checks that `recalibrate` has public images, and that every pattern matches an entry of the backbone.

        Raises:
            FedReIDError: if one of these conditions does not hold.
        """
        if self.batch_norm == "recalibrate" and data.public is None:
            raise FedReIDError("callbacks.backbone_sync.batch_norm=recalibrate: needs public images; set data.public")
        if not self._whole:
            size = (config.data.height, config.data.width)
            self.exchanged(build_backbone(replace(config.model, weights="none"), config.seed, size=size))

    def exchanged(self, network: nn.Module) -> frozenset[str]:
        """Returns the names of the exchanged entries."""
        if self._names is None:
            self._names = exchanged_names(network, self.exchange, self.keep, norms=self.batch_norm != "local")
        return self._names

    # server half

    def on_federation_start(self, federation: RoundContext) -> None:
        """Makes the initial backbone the global model."""
        federation.models["global"] = federation.initial_backbone
        if not self._whole:
            federation.exchanged = self.exchanged(federation.server.network())
        trunk = [name for name in federation.initial_backbone if name.startswith("trunk.")]
        if self.batch_norm != "average" and trunk and not any(name.endswith("running_mean") for name in trunk):
            federation.warn(
                f"callbacks.backbone_sync.batch_norm={self.batch_norm}: the trunk has no BatchNorm; the option only "
                "affects the BatchNorm of the neck"
            )

    def on_distribute(self, federation: RoundContext, job: ClientJob) -> ClientJob:
        """Adds the client's model to its job: the global model, or the model that another callback has assigned."""
        return job.exchanging(federation.travelling(federation.models[federation.model_of(job.client)]))

    def on_aggregation_start(
        self, federation: RoundContext, updates: Sequence[ClientUpdate], weights: dict[str, float]
    ) -> None:
        """Sets the weights `p_k = n_k / sum n`."""
        weights |= normalize_weights({update.client: update.num_samples for update in updates}) or {}

    def aggregate(
        self,
        federation: RoundContext,
        updates: Sequence[ClientUpdate],
        weights: Mapping[str, float],
        models: dict[str, State],
    ) -> dict[str, State]:
        """Returns `w = sum_k p_k w_k` for every model, over the clients that share it."""
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
            models[model] = {**federation.initial_backbone, **average}  # entries that stay at clients do not change
        return models

    def on_aggregation_end(self, federation: RoundContext, updates: Sequence[ClientUpdate]) -> None:
        """With `recalibrate`, estimates new running statistics for every model."""
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
        """Loads the received model into the client's backbone."""
        self._load(pl_module)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Loads the received model if the job only evaluates; after training, the trained model stays in place."""
        if pl_module.job.kind == "evaluate":
            self._load(pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the exchanged entries to the update and keeps the others for the client."""
        copies = copied(pl_module.backbone.state_dict())
        sent = frozenset(pl_module.job.exchanged)
        self._own = {name: value for name, value in copies.items() if name not in sent}
        pl_module.outbox.backbone = {name: value for name, value in copies.items() if name in sent}

    def client_state_dict(self) -> dict[str, Any]:
        """Returns the entries that stay at the client."""
        return {"own": self._own} if self._own else {}

    def load_client_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the entries that stay at the client."""
        self._own = state["own"]

    def _load(self, pl_module: pl.LightningModule) -> None:
        job = pl_module.job
        state = job.backbone
        if not self._whole:  # in its first turn a client uses the initial values of the entries it keeps
            own = {name: value for name, value in self._own.items() if name in self._kept(pl_module.backbone)}
            state = {**pl_module.backbone.state_dict(), **state, **own}
        copy_state(state, pl_module.backbone)

    def _kept(self, network: nn.Module) -> frozenset[str]:
        return frozenset(network.state_dict()) - self.exchanged(network)
