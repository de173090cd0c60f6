"""Ditto: every client trains a personal model besides the federated model, with a proximal term to the received model.

Li et al., "Ditto: Fair and Robust Federated Learning Through Personalization", ICML 2021, Algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import pytorch_lightning as pl
from torch import Tensor, nn
from torch.nn import functional as F

from fedreid_pl.client import ReIDClient
from fedreid_pl.data.batch import TrainBatch
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.capabilities import Capability
from fedreid_pl.federation.client.stand_in import StandIn
from fedreid_pl.federation.messages import State
from fedreid_pl.federation.method import Method
from fedreid_pl.functional.fedprox import proximal_term
from fedreid_pl.functional.randomness import undisturbed
from fedreid_pl.models.weights import copied, copy_state


class Ditto(FederationCallback):
    """Trains the personal model v_k on `min F_k(v_k) + lam/2 * ||v_k - w^t||^2`; the federated model is FedPav's.

    The personal model has its own backbone and head, starts from the run's initial weights and stays at the client
    between its turns. It is trained on every batch of the federated model, with the same learning rates. The proximal
    term is over the exchanged parameters. The client's own evaluation after training ("local" in the tables) uses the
    personal model. A turn needs about twice the time and memory of FedPav.

    Args:
        lam: weight of the proximal term; with 0 the personal model is trained without the federated model.
    """

    removes: ClassVar[tuple[Capability, ...]] = ("local_scores",)
    needs: ClassVar[tuple[Capability, ...]] = ("exchange", "local_scores")
    heads: ClassVar[tuple[str, ...]] = ("head",)
    methods: ClassVar[Mapping[str, Method]] = {
        "ditto": Method(
            title="Ditto",
            paper="Li et al., ICML 2021, Algorithm 1",
            purpose="personal models",
            does="trains a personal model besides the federated model, with lam/2 times the squared distance to it as "
            "a penalty",
            stays="the head; the personal backbone and head",
            verified="the personal step is compared with plain SGD; the federated model equals FedPav's bit for bit",
        ),
    }

    def __init__(self, lam: float = 0.1) -> None:
        if not 0 <= lam < math.inf:
            raise FedReIDError(f"callbacks.ditto.lam={lam}: must be a finite number, at least 0")
        self.lam = lam
        self._kept: dict[str, State] = {}
        self._personal: nn.ModuleDict | None = None
        self._weights: list[Tensor] = []
        self._start: list[Tensor] = []
        self._stand_in = StandIn()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Creates the personal model, or restores that of the client's last turn."""
        if stage != "fit":
            return
        self._personal = nn.ModuleDict({"backbone": pl_module.clone_backbone(), "head": pl_module.clone_head()})
        for name, state in self._kept.items():
            copy_state(state, self._personal[name])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Copies w^t, the received parameters, on the device."""
        assert self._personal is not None  # `setup` has created it
        sent = dict(pl_module.backbone.named_parameters())
        for name, value in self._personal["backbone"].named_parameters():
            if self.lam and name in pl_module.job.backbone and value.requires_grad:
                self._weights.append(value)
                self._start.append(sent[name].detach().clone())

    def training_loss(
        self, pl_module: ReIDClient, batch: TrainBatch, embeddings: Tensor, features: Tensor, logits: Tensor
    ) -> Tensor:
        """Returns `F_k(v_k)` on the batch plus the proximal term."""
        assert self._personal is not None
        with undisturbed(pl_module.device):  # the federated model's dropout does not depend on the personal model
            scores = self._personal["head"](self._personal["backbone"](batch.images))
        loss = F.cross_entropy(scores, batch.labels, label_smoothing=pl_module.loss.label_smoothing)
        return loss + proximal_term(self._weights, self._start, self.lam) if self._weights else loss

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Releases the copy of w^t."""
        self._weights, self._start = [], []

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After training, replaces the federated backbone by the personal backbone for the client's own evaluation."""
        if self._personal is not None:
            self._stand_in.enter(pl_module.backbone, self._personal["backbone"].state_dict())

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restores the federated backbone."""
        self._stand_in.leave(pl_module.backbone)

    def client_state_dict(self) -> dict[str, Any]:
        """Returns the personal model."""
        parts = {} if self._personal is None else self._personal.items()
        return {part: copied(network.state_dict()) for part, network in dict(parts).items()}

    def load_client_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the personal model."""
        self._kept = dict(state)
