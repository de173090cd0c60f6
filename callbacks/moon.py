"""MOON: a contrastive loss draws a client's embeddings to the global model's, away from those of its last local model.

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
    """Adds mu * l_con(z, z_glob, z_prev) to the loss of every step; the server does as before.

    z is the embedding of a batch before the neck's BatchNorm, where metric losses act. z_glob is the embedding of the
    same images by the model with which the turn began, z_prev by the client's model at the end of its last turn; both
    models are in eval mode and have no gradients, as in the authors' code. The paper puts a projection head on top of
    its encoder and takes z behind it; this project has none, so that the exchanged network is FedPav's.

    The previous model stays at the client. A client's first turn has none and adds nothing: the paper's term has no
    gradient there, because both models are the same. A turn makes two forward passes more and holds two backbones more.

    Args:
        mu: weight of the term; the paper tunes it among 0.1, 1, 5 and 10. 0 is FedPav to the bit.
        temperature: tau.
    """

    needs: ClassVar[tuple[Capability, ...]] = ("exchange",)
    methods: ClassVar[Mapping[str, Method]] = {
        "moon": Method(
            title="MOON",
            paper="Li, He and Song, CVPR 2021, Algorithm 1",
            purpose="local training",
            does="draws embeddings to the received model's, away from those of the client's last model",
            stays="the head; the client's last backbone",
            verified="the loss against a second writing in float64; mu = 0 is FedPav to the bit; no projection "
            "head, where the paper has one",
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
        """Makes the two models that the embeddings are compared with."""
        if self.mu and self._previous:
            received, previous = (pl_module.clone_backbone(trainable=False) for _ in range(2))
            copy_state(self._previous, previous)
            self._networks = received, previous

    def training_loss(
        self, pl_module: ReIDClient, batch: TrainBatch, embeddings: Tensor, features: Tensor, logits: Tensor
    ) -> Tensor | None:
        """mu * l_con on the batch."""
        if self._networks is None:
            return None
        with torch.no_grad():
            compared = [embeddings_of(network, batch.images)[0] for network in self._networks]
        return self.mu * model_contrastive_loss(embeddings, *compared, self.temperature)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lets go of both models."""
        self._networks = None

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The trained model is the next turn's previous one."""
        if self.mu:
            self._previous = copied(pl_module.backbone.state_dict())

    def client_state_dict(self) -> dict[str, Any]:
        """The model of this turn's end."""
        return {"previous": self._previous} if self._previous else {}

    def load_client_state_dict(self, state: dict[str, Any]) -> None:
        """Takes the model of the last turn's end back."""
        self._previous = dict(state["previous"])
