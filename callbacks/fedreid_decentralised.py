"""Decentralised FedReID: an expert that stays at the client teaches the model that the client exchanges.

Wu and Gong, "Decentralised Learning from Independent Multi-Domain Labels for Person Re-Identification", AAAI 2021.
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
from fedreid_pl.functional.fedreid_decentralised import expert_divergence, start_of_expert
from fedreid_pl.functional.randomness import generator, undisturbed
from fedreid_pl.models.weights import copied, copy_state


class FedReIDDecentralised(FederationCallback):
    """Trains an expert e_k besides the received model g: `CE(g) + CE(e_k) + weight * T^2 KL(e_k || g)`.

    A turn starts with `e_k <- (1 - alpha) g + alpha e_k` over all entries of the backbone. The expert has its own head,
    which is not mixed. The divergence compares softmax(z / T) of both models; the expert's output is a fixed target
    without gradients. g is exchanged as in FedPav. The expert stays at the client, and the client's own evaluation
    ("local" in the tables) uses it. A turn needs about twice the time and memory of FedPav.

    The server averages as in FedPav; the shipped experiment adds `reweighting` with `by=uniform` for a plain mean. In
    the code that the paper's group published, clients send the mixed model and delete the copy of g. Here clients send
    g and keep the expert, as in the re-implementation behind the tables of DACS (Yang et al., AAAI 2024).

    Args:
        alpha: share of the client's last expert in the new expert.
        temperature: T.
        weight: weight of the divergence; with 0 the federated model equals, bit for bit, that of FedPav with the same
            client weights.
        noise: standard deviation of Gaussian noise on the parameters of the mixed expert (beta in the published code).
            The noise depends on the run's seed and is a regularisation. It does not protect privacy, and the expert
            never leaves the client.
    """

    removes: ClassVar[tuple[Capability, ...]] = ("local_scores",)
    needs: ClassVar[tuple[Capability, ...]] = ("exchange", "local_scores")
    heads: ClassVar[tuple[str, ...]] = ("head",)
    methods: ClassVar[Mapping[str, Method]] = {
        "fedreid_decentralised": Method(
            title="Decentralised FedReID",
            paper="Wu and Gong, AAAI 2021",
            purpose="personal models",
            does="trains an expert at each client, which teaches the exchanged model",
            stays="the head; the expert with its head",
            verified="losses are compared with independent implementations in float64; with weight 0 the result "
            "equals FedPav's bit for bit; the published code sends the mixed model, this implementation sends the "
            "model that the expert teaches",
        ),
    }

    def __init__(self, alpha: float = 0.5, temperature: float = 3.0, weight: float = 1.0, noise: float = 0.0) -> None:
        if not 0 <= alpha <= 1:
            raise FedReIDError(f"callbacks.fedreid_decentralised.alpha={alpha}: must be from 0 to 1")
        if not 0 < temperature < math.inf:
            raise FedReIDError(
                f"callbacks.fedreid_decentralised.temperature={temperature}: must be a finite number above 0"
            )
        for key, value in (("weight", weight), ("noise", noise)):
            if not 0 <= value < math.inf:
                raise FedReIDError(
                    f"callbacks.fedreid_decentralised.{key}={value}: must be a finite number, at least 0"
                )
        self.alpha, self.temperature, self.weight, self.noise = alpha, temperature, weight, noise
        self._kept: dict[str, State] = {}
        self._expert: nn.ModuleDict | None = None
        self._stand_in = StandIn()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Creates the expert, or restores that of the client's last turn."""
        if stage != "fit":
            return
        self._expert = nn.ModuleDict({"backbone": pl_module.clone_backbone(), "head": pl_module.clone_head()})
        for name, state in self._kept.items():
            copy_state(state, self._expert[name])

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Sets `e_k <- (1 - alpha) g + alpha e_k`; the first expert of a client is g."""
        assert self._expert is not None  # `setup` has created it
        received, expert = pl_module.backbone.state_dict(), self._expert["backbone"]
        draws = generator(pl_module.seed, "expert")
        names = dict(expert.named_parameters()).keys()
        last = expert.state_dict() if self._kept else received
        copy_state(start_of_expert(received, last, self.alpha, self.noise, names, draws), expert)

    def training_loss(
        self, pl_module: ReIDClient, batch: TrainBatch, embeddings: Tensor, features: Tensor, logits: Tensor
    ) -> Tensor:
        """Returns `CE(e_k) + weight * T^2 KL(e_k || g)`."""
        assert self._expert is not None
        with undisturbed(pl_module.device):  # the federated model's dropout does not depend on the expert
            scores = self._expert["head"](self._expert["backbone"](batch.images))
        loss = F.cross_entropy(scores, batch.labels, label_smoothing=pl_module.loss.label_smoothing)
        if self.weight:
            loss = loss + self.weight * expert_divergence(scores, logits, self.temperature)
        return loss

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After training, replaces the federated backbone by the expert for the client's own evaluation."""
        if self._expert is not None:
            self._stand_in.enter(pl_module.backbone, self._expert["backbone"].state_dict())

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restores the federated backbone."""
        self._stand_in.leave(pl_module.backbone)

    def client_state_dict(self) -> dict[str, Any]:
        """Returns the expert."""
        parts = {} if self._expert is None else self._expert.items()
        return {part: copied(network.state_dict()) for part, network in dict(parts).items()}

    def load_client_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the expert."""
        self._kept = dict(state)
