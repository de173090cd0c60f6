"""Dual local normalisation: every client has a private set of BatchNorm besides the set that is exchanged.

Sun, Wu and Gong, "Decentralised Person Re-Identification with Selective Knowledge Aggregation" (SKA), BMVC 2021.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from fedreid_pl.client import ReIDClient
from fedreid_pl.config import Config
from fedreid_pl.data.batch import TrainBatch
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.capabilities import Capability
from fedreid_pl.federation.client.stand_in import StandIn
from fedreid_pl.federation.messages import State
from fedreid_pl.federation.method import Method
from fedreid_pl.functional.randomness import undisturbed
from fedreid_pl.models.batch_norm import norm_names
from fedreid_pl.models.weights import copied


class DualNorm(FederationCallback):
    """Gives every BatchNorm of a client a second, private set of parameters and statistics, which is never sent.

    Every batch passes through the same weights twice, once with each set. The loss of a step is CE(exchanged set) +
    weight * CE(private set). So convolutions, the neck's linear layer and the head learn from both passes, and each set
    learns from its own pass. The client's own evaluation after training ("local" in the tables) uses the private set.
    The server's model has the averaged set; unseen domains use this model. The private set starts from the run's
    initial values and stays at the client.

    This callback implements only the dual local normalisation of SKA, not its attentive normalisation, which replaces
    BatchNorm by another layer. It is not verified how the paper trains both sets in one step: to pass every batch
    through both and to add the losses is this project's choice. A turn needs about twice the time and memory for
    activations.

    Args:
        weight: weight of the loss with the private set; with 0 there is no private set, and the result equals FedPav's
            bit for bit.
    """

    removes: ClassVar[tuple[Capability, ...]] = ("local_scores",)
    needs: ClassVar[tuple[Capability, ...]] = ("exchange", "local_scores")
    methods: ClassVar[Mapping[str, Method]] = {
        "dual_norm": Method(
            title="SKA's dual local normalisation",
            paper="Sun, Wu and Gong, BMVC 2021",
            purpose="personal models",
            does="gives each client a second, private set of BatchNorm, which the client uses for its own evaluation",
            exchanged="the backbone with the other set of BatchNorm",
            stays="the head; the private set of BatchNorm",
            verified="the training step is compared with a step computed by hand; it is not known how the paper "
            "trains both sets; the paper's attentive normalisation is not implemented",
        ),
    }

    def __init__(self, weight: float = 1.0) -> None:
        if not 0 <= weight < math.inf:
            raise FedReIDError(f"callbacks.dual_norm.weight={weight}: must be a finite number, at least 0")
        self.weight = weight
        self._kept: State = {}
        self._private: nn.Module | None = None
        self._stand_in = StandIn()

    def check(self, config: Config, data: FederatedData) -> None:
        """Checks that one set of BatchNorm is exchanged, and that the trunk is not compiled.

        Raises:
            FedReIDError: if one of these conditions does not hold.
        """
        if config.callbacks.get("backbone_sync", {}).get("batch_norm") == "local":
            raise FedReIDError(
                "callbacks.backbone_sync.batch_norm=local: callbacks.dual_norm must exchange one of its two sets of "
                "BatchNorm; set average, first or recalibrate"
            )
        if config.trainer.compile != "none":
            raise FedReIDError(
                f"trainer.compile={config.trainer.compile}: callbacks.dual_norm cannot run a compiled trunk with two "
                "sets of BatchNorm; set trainer.compile=none"
            )

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Creates the private set, or restores that of the client's last turn."""
        if stage != "fit" or not self.weight:
            return
        self._private = pl_module.clone_backbone(entries=norm_names(pl_module.backbone))
        with torch.no_grad():
            for name, value in self._private.state_dict().items():
                value.copy_(self._kept.get(name, value))

    def training_loss(
        self, pl_module: ReIDClient, batch: TrainBatch, embeddings: Tensor, features: Tensor, logits: Tensor
    ) -> Tensor | None:
        """Returns `weight` times the cross-entropy of the pass with the private set."""
        if self._private is None:
            return None
        own = {**dict(self._private.named_parameters()), **dict(self._private.named_buffers())}
        with undisturbed(pl_module.device):  # the pass with the exchanged set keeps FedPav's dropout
            scores = pl_module.head(functional_call(pl_module.backbone, own, (batch.images,)))
        return self.weight * F.cross_entropy(scores, batch.labels, label_smoothing=pl_module.loss.label_smoothing)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After training, replaces the exchanged set by the private set for the client's own evaluation."""
        if self._private is not None:
            self._stand_in.enter(pl_module.backbone, self._private.state_dict())

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restores the exchanged set."""
        self._stand_in.leave(pl_module.backbone)

    def client_state_dict(self) -> dict[str, Any]:
        """Returns the private set."""
        if self._private is None:
            return {}
        return {"private": copied(self._private.state_dict())}

    def load_client_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the private set."""
        self._kept = dict(state["private"])
