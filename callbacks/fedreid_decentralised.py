"""Decentralised FedReID: an expert that stays at the client teaches the model that it exchanges.

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
    """Trains an expert e_k beside the received model g: CE(g) + CE(e_k) + weight * T^2 KL(e_k || g).

    A turn starts with e_k <- (1 - alpha) g + alpha e_k, over all entries of the backbone; the expert has a head of its
    own, which is not mixed. The divergence is between softmax(z / T) of both, the expert is its fixed target. g is
    exchanged as in FedPav, the expert stays at the client and is what the client's own evaluation is of ("local" in
    the tables). A turn takes about twice the time and memory.

    The server's average is FedPav's; the shipped experiment adds `reweighting` with `by=uniform`, for a plain mean. In
    the code that the paper's group published, the mixed model is sent and the copy of g is thrown away. Here g is sent
    and the expert does not leave, as in the re-implementation behind DACS's tables (Yang et al., AAAI 2024).

    Args:
        alpha: share of the client's last expert in the new one.
        temperature: T.
        weight: of the divergence; with 0 the federated model is FedPav's to the bit, under the same weights of clients.
        noise: standard deviation of Gaussian noise on the parameters of the mixed expert, beta in the code. It is
            drawn from the run's seed, and the expert does not leave: it regularises and protects nobody.
    """

    removes: ClassVar[tuple[Capability, ...]] = ("local_scores",)
    needs: ClassVar[tuple[Capability, ...]] = ("exchange", "local_scores")
    heads: ClassVar[tuple[str, ...]] = ("head",)
    methods: ClassVar[Mapping[str, Method]] = {
        "fedreid_decentralised": Method(
            title="Decentralised FedReID",
            paper="Wu and Gong, AAAI 2021",
            purpose="personal models",
            does="trains an expert at each client, which teaches the model that is exchanged",
            stays="the head; the expert with its head",
            verified="losses against second writings in float64; weight 0 is FedPav to the bit; the group's code "
            "sends the mixed model, this sends the taught one",
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
        """Makes the expert, or takes up that of the client's last turn."""
        if stage != "fit":
            return
        self._expert = nn.ModuleDict({"backbone": pl_module.clone_backbone(), "head": pl_module.clone_head()})
        for name, state in self._kept.items():
            copy_state(state, self._expert[name])

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """e_k <- (1 - alpha) g + alpha e_k; a client's first expert is g."""
        assert self._expert is not None  # `setup` made it
        received, expert = pl_module.backbone.state_dict(), self._expert["backbone"]
        draws = generator(pl_module.seed, "expert")
        names = dict(expert.named_parameters()).keys()
        last = expert.state_dict() if self._kept else received
        copy_state(start_of_expert(received, last, self.alpha, self.noise, names, draws), expert)

    def training_loss(
        self, pl_module: ReIDClient, batch: TrainBatch, embeddings: Tensor, features: Tensor, logits: Tensor
    ) -> Tensor:
        """CE(e_k) + weight * T^2 KL(e_k || g)."""
        assert self._expert is not None
        with undisturbed(pl_module.device):  # the federated model's dropout does not depend on the expert
            scores = self._expert["head"](self._expert["backbone"](batch.images))
        loss = F.cross_entropy(scores, batch.labels, label_smoothing=pl_module.loss.label_smoothing)
        if self.weight:
            loss = loss + self.weight * expert_divergence(scores, logits, self.temperature)
        return loss

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After training, the expert takes the federated backbone's place."""
        if self._expert is not None:
            self._stand_in.enter(pl_module.backbone, self._expert["backbone"].state_dict())

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The federated backbone comes back."""
        self._stand_in.leave(pl_module.backbone)

    def client_state_dict(self) -> dict[str, Any]:
        """The expert."""
        parts = {} if self._expert is None else self._expert.items()
        return {part: copied(network.state_dict()) for part, network in dict(parts).items()}

    def load_client_state_dict(self, state: dict[str, Any]) -> None:
        """Takes the expert back."""
        self._kept = dict(state)
