"""FedProx: a proximal term keeps the local model close to the model that the server sent.

Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020, Eq. 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import pytorch_lightning as pl
from torch import Tensor

from fedreid_pl.client import ReIDClient
from fedreid_pl.data.batch import TrainBatch
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.capabilities import Capability
from fedreid_pl.federation.method import Method
from fedreid_pl.functional.fedprox import proximal_term


class FedProx(FederationCallback):
    """Clients minimise `F_k(w) + mu/2 * ||w - w^t||^2` over the exchanged parameters; the server works as in FedPav.

    The term does not cover the head, which is not exchanged, nor BatchNorm if it stays at the client. The term is part
    of the loss that the client reports, and is also logged separately as `train/fedprox`.

    Args:
        mu: weight of the term; with 0 the result equals FedPav's bit for bit.
    """

    needs: ClassVar[tuple[Capability, ...]] = ("exchange",)
    methods: ClassVar[Mapping[str, Method]] = {
        "fedprox": Method(
            title="FedProx",
            paper="Li et al., MLSys 2020, Eq. 2",
            purpose="local training",
            does="adds mu/2 times the squared distance between the local and the received model to the loss",
            verified="the gradient is compared with mu (w - w^t); with mu = 0 the result equals FedPav's bit for bit",
        ),
    }

    def __init__(self, mu: float = 0.01) -> None:
        if not 0 <= mu < math.inf:
            raise FedReIDError(f"callbacks.fedprox.mu={mu}: must be a finite number, at least 0")
        self.mu = mu
        self._weights: list[Tensor] = []
        self._start: list[Tensor] = []

    # client half

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Copies w^t, the received parameters, on the device."""
        exchanged = pl_module.job.backbone
        for name, value in pl_module.backbone.named_parameters():
            if self.mu and name in exchanged and value.requires_grad:
                self._weights.append(value)
                self._start.append(value.detach().clone())

    def training_loss(
        self, pl_module: ReIDClient, batch: TrainBatch, embeddings: Tensor, features: Tensor, logits: Tensor
    ) -> Tensor | None:
        """Returns `mu/2 * ||w - w^t||^2`."""
        return proximal_term(self._weights, self._start, self.mu) if self._weights else None

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Releases the copy of w^t."""
        self._weights, self._start = [], []
