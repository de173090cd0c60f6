"""DACS: every client learns to restyle its images, judged by the global model and a local expert.

Yang et al., "Diversity-Authenticity Co-constrained Stylization for Federated Domain Generalization in Person
Re-identification", AAAI 2024.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import pytorch_lightning as pl
from torch import Tensor

from fedreid_pl.client import ReIDClient
from fedreid_pl.config import Config
from fedreid_pl.data.batch import TrainBatch
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.capabilities import Capability
from fedreid_pl.federation.client.stylist import Stylist
from fedreid_pl.federation.method import Method
from fedreid_pl.models.stages import check_not_compiled


class DACS(FederationCallback):
    """Trains g on images x and on transformed images x', the transformation phi on both losses, and an expert l on x.

    With the client's task loss T (cross-entropy, plus the triplet loss if the configuration has one) a step minimises
    `T(g(x)) + T(l(x)) + weight T(g(x')) + diversity L_div + authenticity L_au`. phi = (m, s) has a number for every
    pixel and restyles x to `x' = s (x - mu(x)) / sigma(x) + m`. L_div = `-||mu - m||^2 - ||sigma - s||^2` drives it
    away from the images' own styles, and L_au holds it to styles that g is less certain about than about x, and l even
    less. g is exchanged as in FedPav; l and phi stay at the client. A step takes a forward and a backward pass more for
    l and for x' each, and three further forward passes for L_au.

    Where the published code departs from the paper: it compares variances (`style_statistics=variance`), leaves
    probabilities below 1e-6 out of entropies (`least_probability=1e-6`) and multiplies L_au by 1 by default
    (`authenticity=1`). As in that code, norms are means of squares, the terms of x' begin in the second round
    (`first_round`), and l is classified by the client's one head, which only g trains. Here, not there, one optimizer
    step moves all parts at once, L_au leaves the head alone, and l judges x' in eval mode.

    The reported `train/dacs` holds the distance of styles with a plus sign, so that it is no negative loss; the
    gradient is that of L_div.

    Args:
        weight: of the loss on transformed images.
        diversity: weight of L_div.
        authenticity: weight of L_au. With all three 0 the federated model is FedPav's to the bit.
        first_round: the round, from 1, in which transformed images are first used.
        style_statistics: what L_div compares beside means.
        least_probability: smaller probabilities count as nothing in entropies.
    """

    needs: ClassVar[tuple[Capability, ...]] = ("exchange",)
    methods: ClassVar[Mapping[str, Method]] = {
        "dacs": Method(
            title="DACS",
            paper="Yang et al., AAAI 2024",
            purpose="unseen places",
            does="learns at every client to restyle its images, judged by the received model and a local expert",
            stays="the head; the expert; the transformation, two numbers for every pixel and channel",
            verified="losses against second writings in float64, gradients by finite differences; all weights 0 "
            "are FedPav to the bit; steps are merged into one optimizer step; published figures not "
            "reproduced",
        ),
    }

    def __init__(
        self,
        weight: float = 1.0,
        diversity: float = 1.0,
        authenticity: float = 5.0,
        first_round: int = 2,
        style_statistics: Literal["deviation", "variance"] = "deviation",
        least_probability: float = 0.0,
    ) -> None:
        self._stylist = Stylist(
            "dacs", weight, diversity, authenticity, first_round, style_statistics, least_probability
        )

    def check(self, config: Config, data: FederatedData) -> None:
        """Refuses a compiled trunk, which is not run with frozen weights."""
        check_not_compiled(config.trainer.compile, "dacs")

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Makes the expert and the transformation, or takes up those of the client's last turn."""
        if stage == "fit":
            self._stylist.begin(trainer, pl_module)

    def training_loss(
        self, pl_module: ReIDClient, batch: TrainBatch, embeddings: Tensor, features: Tensor, logits: Tensor
    ) -> Tensor:
        """The expert's loss, and from `first_round` on those of the transformed images and of the transformation."""
        loss = self._stylist.expert_loss(
            pl_module, batch, lambda before, _, scores: pl_module.supervised_loss(batch.labels, before, scores)
        )
        return self._stylist.style_losses(pl_module, batch, loss)

    def client_state_dict(self) -> dict[str, Any]:
        """The expert and the transformation."""
        return self._stylist.state_dict()

    def load_client_state_dict(self, state: dict[str, Any]) -> None:
        """Takes them back."""
        self._stylist.load_state_dict(state)
