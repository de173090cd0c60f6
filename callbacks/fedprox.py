"""FedProx: a proximal term holds the local model to the one that the server sent.

Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020, Eq. 2.
"""

from __future__ import annotations

import math
from typing import ClassVar

import pytorch_lightning as pl
from torch import Tensor
from torch.optim import Optimizer

from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.capabilities import Capability
from fedreid_pl.federation.client.local_steps import gradient_scale
from fedreid_pl.functional.fedprox import proximal_gradient


class FedProx(FederationCallback):
    """Clients minimise F_k(w) + mu/2 * ||w - w^t||^2 over the exchanged parameters; the server does as before.

    The head, which nobody else has, and BatchNorm that stays at the client are free. The term enters as its
    gradient mu * (w - w^t), after gradients are averaged over processes.

    Args:
        mu: weight of the term; 0 is FedPav to the bit.
    """

    needs: ClassVar[tuple[Capability, ...]] = ("exchange",)

    def __init__(self, mu: float = 0.01) -> None:
        if not 0 <= mu < math.inf:
            raise FedReIDError(f"callbacks.fedprox.mu={mu}: must be a finite number, at least 0")
        self.mu = mu
        self._pairs: list[tuple[Tensor, Tensor]] = []

    # client half

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keeps w^t, on the device."""
        exchanged = pl_module.job.backbone
        self._pairs = [
            (value, value.detach().clone())
            for name, value in pl_module.backbone.named_parameters()
            if self.mu and name in exchanged
        ]

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Adds mu * (w - w^t) to the gradients."""
        scale = gradient_scale(trainer, optimizer)
        for weight, start in self._pairs:
            if weight.grad is not None:  # without a gradient it stays w^t
                weight.grad.add_(proximal_gradient(weight, start, self.mu), alpha=scale)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lets go of w^t."""
        self._pairs = []
