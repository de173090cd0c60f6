"""FedDyn: regularises every client's objective so that its minimum agrees with that of the federation.

Acar et al., "Federated Learning Based on Dynamic Regularization", ICLR 2021, Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor

from fedreid_pl import ClientUpdate, FederationCallback, FedReIDError, ReIDClient, RoundContext

State = dict[str, Tensor]


class FedDyn(FederationCallback):
    """Adds `-<g_k, w> + alpha/2 * ||w - w^t||^2` to a client's loss, and corrects the average at the server.

    After its turn a client sets `g_k <- g_k - alpha * (w_k - w^t)`. The server keeps
    `h <- h - alpha/m * sum_k (w_k - w^t)` over the clients of the round, m being the number of all clients, and sends
    `mean_k(w_k) - h / alpha`. The mean is unweighted, as in the paper. Running statistics of BatchNorm are averaged by
    the preceding callbacks.

    Args:
        alpha: strength of the regularisation, above 0.
    """

    needs = ("average", "one_global_model", "sees_single_updates", "server_step")
    removes = ("server_step",)
    methods: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, alpha: float = 0.01) -> None:
        if not alpha > 0:
            raise FedReIDError(f"callbacks.feddyn.alpha={alpha}: must be above 0")
        self.alpha = alpha
        self._server: State = {}  # h
        self._gradient: State = {}  # g_k
        self._weights: dict[str, Tensor] = {}
        self._start: State = {}

    # server half

    def aggregate(
        self,
        federation: RoundContext,
        updates: Sequence[ClientUpdate],
        weights: Mapping[str, float],
        models: dict[str, State],
    ) -> dict[str, State]:
        """Returns the averaged model with FedDyn's parameters."""
        old, new = federation.models["global"], dict(models["global"])
        for name in new:
            sent = [update.backbone[name] for update in updates if name in update.backbone]
            if name in federation.buffer_names or not sent:
                continue
            mean = torch.stack([value.double() for value in sent]).mean(0)
            change = (mean - old[name].double()) * (len(sent) / len(federation.clients))
            h = self._server.get(name, torch.zeros_like(mean)) - self.alpha * change
            self._server[name] = h
            new[name] = (mean - h / self.alpha).to(old[name].dtype)
        return {**models, "global": new}

    def state_dict(self) -> dict[str, Any]:
        """Returns h."""
        return {"server": dict(self._server)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores h."""
        self._server = dict(state.get("server", {}))

    # client half

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stores w^t."""
        for name, weight in pl_module.backbone.named_parameters():
            if name in pl_module.job.backbone and weight.requires_grad:
                self._weights[name], self._start[name] = weight, weight.detach().clone()
                self._gradient.setdefault(name, torch.zeros_like(weight, device="cpu"))
        self._linear = {name: self._gradient[name].to(weight.device) for name, weight in self._weights.items()}

    def training_loss(
        self, pl_module: ReIDClient, batch: Any, embeddings: Tensor, features: Tensor, logits: Tensor
    ) -> Tensor | None:
        """Returns `-<g_k, w - w^t> + alpha/2 * ||w - w^t||^2`; the constant `<g_k, w^t>` changes no gradient.

        A reported loss may not be negative, so this method returns the squared distance to the minimum:
        `alpha/2 * ||w - w^t - g_k / alpha||^2` differs from it by a constant too.
        """
        squares = [
            (weight - self._start[name] - self._linear[name] / self.alpha).square().sum()
            for name, weight in self._weights.items()
        ]
        return self.alpha / 2 * torch.stack(squares).sum() if squares else None

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Updates g_k and releases w^t."""
        for name, weight in self._weights.items():
            self._gradient[name] = self._gradient[name] - self.alpha * (weight.detach() - self._start[name]).cpu()
        self._weights, self._start, self._linear = {}, {}, {}

    def client_state_dict(self) -> dict[str, Any]:
        """Returns g_k, which stays at the client."""
        return {"gradient": dict(self._gradient)}

    def load_client_state_dict(self, state: dict[str, Any]) -> None:
        """Restores g_k."""
        self._gradient = dict(state.get("gradient", {}))
