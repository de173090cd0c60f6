"""Dual local normalisation: a private set of BatchNorm for the client's own tests beside the set that is exchanged.

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

    Every batch goes through the same weights twice, once with each set, and the step's loss is
    CE(exchanged set) + weight * CE(private set). So convolutions, the neck's linear layer and the head learn from both,
    and each set from its own pass. The client's own evaluation after training is with the private set ("local" in the
    tables); the server's model, which is for unseen domains too, has the averaged set. The private set starts from the
    run's initial values and stays at the client.

    This is SKA's dual local normalisation alone. Its attentive normalisation, another layer in the place of BatchNorm,
    is not offered. How the paper trains both sets in one step was not verified: passing a batch through both and adding
    the losses is this project's choice. A turn takes about twice the time and the memory of activations.

    Args:
        weight: of the private set's loss; 0 is FedPav to the bit, without a private set.
    """

    removes: ClassVar[tuple[Capability, ...]] = ("local_scores",)
    needs: ClassVar[tuple[Capability, ...]] = ("exchange", "local_scores")
    methods: ClassVar[Mapping[str, Method]] = {
        "dual_norm": Method(
            title="SKA's dual local normalisation",
            paper="Sun, Wu and Gong, BMVC 2021",
            purpose="personal models",
            does="gives each client a second, private set of BatchNorm for its own tests",
            exchanged="the backbone with its other set of BatchNorm",
            stays="the head; the private set of BatchNorm",
            verified="the step against one by hand; how the paper trains both sets is not known, and its attentive "
            "normalisation is not offered",
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
        """One set has to travel, and a compiled trunk knows one set only."""
        if config.callbacks.get("backbone_sync", {}).get("batch_norm") == "local":
            raise FedReIDError(
                "callbacks.backbone_sync.batch_norm=local: callbacks.dual_norm exchanges one of two sets of BatchNorm; "
                "choose average, first or recalibrate"
            )
        if config.trainer.compile != "none":
            raise FedReIDError(
                f"trainer.compile={config.trainer.compile}: callbacks.dual_norm runs the trunk with two sets of "
                "BatchNorm; set trainer.compile=none"
            )

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Makes the private set, or takes up that of the client's last turn."""
        if stage != "fit" or not self.weight:
            return
        self._private = pl_module.clone_backbone(entries=norm_names(pl_module.backbone))
        with torch.no_grad():
            for name, value in self._private.state_dict().items():
                value.copy_(self._kept.get(name, value))

    def training_loss(
        self, pl_module: ReIDClient, batch: TrainBatch, embeddings: Tensor, features: Tensor, logits: Tensor
    ) -> Tensor | None:
        """Cross-entropy of the same weights with the private set."""
        if self._private is None:
            return None
        own = {**dict(self._private.named_parameters()), **dict(self._private.named_buffers())}
        with undisturbed(pl_module.device):  # dropout of the pass with the exchanged set is FedPav's
            scores = pl_module.head(functional_call(pl_module.backbone, own, (batch.images,)))
        return self.weight * F.cross_entropy(scores, batch.labels, label_smoothing=pl_module.loss.label_smoothing)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After training, the private set takes the exchanged one's place."""
        if self._private is not None:
            self._stand_in.enter(pl_module.backbone, self._private.state_dict())

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The exchanged set comes back."""
        self._stand_in.leave(pl_module.backbone)

    def client_state_dict(self) -> dict[str, Any]:
        """The private set."""
        if self._private is None:
            return {}
        return {"private": copied(self._private.state_dict())}

    def load_client_state_dict(self, state: dict[str, Any]) -> None:
        """Takes the private set back."""
        self._kept = dict(state["private"])
