"""FedBABU: the head keeps its random initial values in federated training; a client fine-tunes the model for itself.

Oh, Kim and Yun, "FedBABU: Toward Enhanced Representation for Federated Image Classification", ICLR 2022.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedreid_pl.client import ReIDClient
from fedreid_pl.config import Config
from fedreid_pl.data.batch import TrainBatch
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.capabilities import Capability
from fedreid_pl.federation.client.stand_in import StandIn
from fedreid_pl.federation.method import Method
from fedreid_pl.functional.randomness import undisturbed
from fedreid_pl.models.weights import copy_state


class FedBabu(FederationCallback):
    """Trains and exchanges only the body (the backbone); the head keeps the random values of the client's first turn.

    In the paper all clients share one head. Here each client has its own persons and therefore its own head, which
    stays at the client. Clients exchange the same entries as in FedPav.

    Fine-tuning: if a turn ends with the client's evaluation, the client also trains a copy of the received body and of
    the frozen head, on the same batches with the usual learning rates. The client evaluates this copy ("local" in the
    tables) and then deletes it. The paper fine-tunes the head, or head and body. Retrieval does not use the head, so
    fine-tuning of the head alone could not change a score; here head and body are fine-tuned. Such a turn needs about
    twice the time and memory, and `train/loss` contains the loss of the copy.

    Args:
        fine_tune: `all` as above. `none`: the client evaluates the federated model after local training.
        head_std: standard deviation of the frozen head's weights. The default is about that of PyTorch's linear layer
            over 512 features. The heads of this project are drawn with 0.001; frozen at this scale, they would make the
            gradients of the body 25 times smaller in all rounds. `null` keeps the values as they are drawn.
    """

    removes: ClassVar[tuple[Capability, ...]] = ("local_scores",)
    needs: ClassVar[tuple[Capability, ...]] = ("exchange", "local_scores")
    per_person: ClassVar[tuple[str, ...]] = ("drawn",)  # all rows of a frozen head are scaled by one factor
    methods: ClassVar[Mapping[str, Method]] = {
        "fedbabu": Method(
            title="FedBABU",
            paper="Oh, Kim and Yun, ICLR 2022",
            purpose="personal models",
            does="freezes the randomly initialised head, and fine-tunes a copy of the model for the client's own "
            "evaluation",
            verified="the head stays equal bit for bit over the rounds; the fine-tuned copy is compared with plain "
            "training; each client has its own head, whereas the paper has one head for all",
        ),
    }

    def __init__(self, fine_tune: Literal["all", "none"] = "all", head_std: float | None = 0.025) -> None:
        if head_std is not None and not 0 < head_std < math.inf:
            raise FedReIDError(f"callbacks.fedbabu.head_std={head_std}: must be a finite number above 0, or null")
        self.fine_tune, self.head_std = fine_tune, head_std
        self._drawn = False
        self._personal: nn.ModuleDict | None = None
        self._stand_in = StandIn()

    def check(self, config: Config, data: FederatedData) -> None:
        """Checks that no momentum is saved between rounds, because every evaluation fine-tunes a new copy.

        Raises:
            FedReIDError: with `optimizer_state=keep` and momentum, unless `fine_tune=none`.
        """
        if config.optimizer_state == "keep" and config.optim.momentum and self.fine_tune != "none":
            raise FedReIDError(
                "optimizer_state=keep: callbacks.fedbabu fine-tunes a new copy for every evaluation, which would start "
                "with old momentum; set optimizer_state=reset or callbacks.fedbabu.fine_tune=none"
            )

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Freezes the head and, if this turn ends with an evaluation, creates the copy that is fine-tuned."""
        if stage != "fit":
            return
        if not self._drawn and self.head_std is not None:
            with torch.no_grad():
                pl_module.head.weight.mul_(self.head_std / pl_module.head.weight.std())
        self._drawn = True
        if self.fine_tune == "all" and pl_module.job.config.get("evaluate"):
            self._personal = nn.ModuleDict({"backbone": pl_module.clone_backbone(), "head": pl_module.clone_head()})
        pl_module.head.requires_grad_(False)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Loads the received body into the copy."""
        if self._personal is not None:
            copy_state(pl_module.backbone.state_dict(), self._personal["backbone"])

    def training_loss(
        self, pl_module: ReIDClient, batch: TrainBatch, embeddings: Tensor, features: Tensor, logits: Tensor
    ) -> Tensor | None:
        """Returns the cross-entropy of the copy on the batch."""
        if self._personal is None:
            return None
        with undisturbed(pl_module.device):  # the federated model's dropout does not depend on the copy
            scores = self._personal["head"](self._personal["backbone"](batch.images))
        return F.cross_entropy(scores, batch.labels, label_smoothing=pl_module.loss.label_smoothing)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After training, replaces the federated body by the fine-tuned body for the client's own evaluation."""
        if self._personal is not None:
            self._stand_in.enter(pl_module.backbone, self._personal["backbone"].state_dict())

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restores the federated body."""
        self._stand_in.leave(pl_module.backbone)

    def client_state_dict(self) -> dict[str, Any]:
        """Returns whether the head is already scaled; the client saves the head itself like every head."""
        return {"drawn": self._drawn}

    def load_client_state_dict(self, state: dict[str, Any]) -> None:
        """Restores whether the head is already scaled."""
        self._drawn = bool(state["drawn"])
