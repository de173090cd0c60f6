"""MOON: a contrastive loss pulls embeddings to the global model's, and away from those of the client's last model.

Li, He and Song, "Model-Contrastive Federated Learning", CVPR 2021, Algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from fedreid_pl.client import ReIDClient
from fedreid_pl.data.batch import TrainBatch
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.capabilities import Capability
from fedreid_pl.federation.messages import State
from fedreid_pl.federation.method import Method
from fedreid_pl.functional.moon import model_contrastive_loss
from fedreid_pl.models.embedder import embeddings_of
from fedreid_pl.models.weights import copied, copy_state


class Moon(FederationCallback):
    """Adds `mu * l_con(z, z_glob, z_prev)` to the loss of every step; the server works as in FedPav.

    z is the embedding of a batch before the neck's BatchNorm, which metric losses use. z_glob is the embedding of the
    same images by the model at the start of the turn. z_prev is their embedding by the client's model at the end of its
    last turn. Both models are in eval mode and have no gradients, as in the authors' code. The paper adds a projection
    head to its encoder and uses the head's output as z. This project has no projection head, so clients exchange the
    same network as in FedPav.

    The previous model stays at the client. In a client's first turn there is no previous model and no term: the paper's
    term has no gradient in this turn, because both models are equal. Compared with FedPav, a turn computes two more
    forward passes per step and has two more backbones in memory.

    Args:
        mu: weight of the term; with 0 the result equals FedPav's bit for bit. The paper chooses among 0.1, 1, 5 and 10.
        temperature: tau.
    """

    needs: ClassVar[tuple[Capability, ...]] = ("exchange",)
    methods: ClassVar[Mapping[str, Method]] = {
        "moon": Method(
            title="MOON",
            paper="Li, He and Song, CVPR 2021, Algorithm 1",
            purpose="local training",
            does="pulls embeddings to those of the received model, and away from those of the client's last model",
            stays="the head; the client's last backbone",
            verified="the loss is compared with an independent implementation in float64; with mu = 0 the result "
            "equals FedPav's bit for bit; there is no projection head, unlike in the paper",
        ),
    }

    def __init__(self, mu: float = 1.0, temperature: float = 0.5) -> None:
        if not 0 <= mu < math.inf:
            raise FedReIDError(f"callbacks.moon.mu={mu}: must be a finite number, at least 0")
        if not 0 < temperature < math.inf:
            raise FedReIDError(f"callbacks.moon.temperature={temperature}: must be a finite number above 0")
        self.mu, self.temperature = mu, temperature
        self._previous: State = {}
        self._networks: tuple[nn.Module, nn.Module] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Creates the received and the previous model, whose embeddings the loss uses."""
        if self.mu and self._previous:
            received, previous = (pl_module.clone_backbone(trainable=False) for _ in range(2))
            copy_state(self._previous, previous)
            self._networks = received, previous

    def training_loss(
        self, pl_module: ReIDClient, batch: TrainBatch, embeddings: Tensor, features: Tensor, logits: Tensor
    ) -> Tensor | None:
        """Returns `mu * l_con` on the batch."""
        if self._networks is None:
            return None
        with torch.no_grad():
            compared = [embeddings_of(network, batch.images)[0] for network in self._networks]
        return self.mu * model_contrastive_loss(embeddings, *compared, self.temperature)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Releases both models."""
        self._networks = None

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Copies the trained model as the previous model of the next turn."""
        if self.mu:
            self._previous = copied(pl_module.backbone.state_dict())

    def client_state_dict(self) -> dict[str, Any]:
        """Returns the model of this turn's end."""
        return {"previous": self._previous} if self._previous else {}

    def load_client_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the model of the last turn's end."""
        self._previous = dict(state["previous"])
