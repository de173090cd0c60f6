"""DACS: every client learns to restyle its images; the global model and a local expert judge the new styles.

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
    """Trains the model g on images x and transformed images x', the expert l on x, and the transformation phi.

    With the client's task loss T (cross-entropy, plus the triplet loss if the configuration has one), a step minimises
    `T(g(x)) + T(l(x)) + weight T(g(x')) + diversity L_div + authenticity L_au`. phi = (m, s) has one number for every
    pixel and channel and transforms x to `x' = s (x - mu(x)) / sigma(x) + m`. `L_div = -||mu - m||^2 - ||sigma - s||^2`
    moves phi away from the images' own styles. L_au limits phi to styles for which g is less certain about x' than
    about x, and l is even less certain about x'. g is exchanged as in FedPav; l and phi stay at the client. Compared
    with FedPav, a step computes one more forward and backward pass for l, one more for x', and three more forward
    passes for L_au.

    The published code differs from the paper: it compares variances (`style_statistics=variance`), leaves probabilities
    below 1e-6 out of entropies (`least_probability=1e-6`) and multiplies L_au by 1 by default (`authenticity=1`). As in
    the published code, norms are means of squares, the terms with x' start in the second round (`first_round`), and l
    uses the client's only head, which g alone trains. Unlike the published code, one optimizer step updates all parts,
    L_au does not train the head, and l judges x' in eval mode.

    The logged `train/dacs` contains the distance of styles with a plus sign, so that the loss is not negative. The
    gradient is that of L_div.

    Args:
        weight: weight of the loss on transformed images.
        diversity: weight of L_div.
        authenticity: weight of L_au. If all three weights are 0, the federated model equals FedPav's bit for bit.
        first_round: the first round, counted from 1, that uses transformed images.
        style_statistics: what L_div compares besides means.
        least_probability: smaller probabilities are left out of entropies.
    """

    needs: ClassVar[tuple[Capability, ...]] = ("exchange",)
    methods: ClassVar[Mapping[str, Method]] = {
        "dacs": Method(
            title="DACS",
            paper="Yang et al., AAAI 2024",
            purpose="unseen places",
            does="every client learns a transformation of its images; the received model and a local expert judge the "
            "transformed images",
            stays="the head; the expert; the transformation, two numbers for every pixel and channel",
            verified="losses are compared with independent implementations in float64, gradients with finite "
            "differences; with all weights 0 the result equals FedPav's bit for bit; one optimizer step replaces the "
            "separate steps of the published code; published figures are not reproduced",
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
        """Checks that the trunk is not compiled, because a compiled trunk cannot run with frozen weights.

        Raises:
            FedReIDError: if `trainer.compile` is on.
        """
        check_not_compiled(config.trainer.compile, "dacs")

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Creates the expert and the transformation, or restores those of the client's last turn."""
        if stage == "fit":
            self._stylist.begin(trainer, pl_module)

    def training_loss(
        self, pl_module: ReIDClient, batch: TrainBatch, embeddings: Tensor, features: Tensor, logits: Tensor
    ) -> Tensor:
        """Returns the expert's loss and, from `first_round` on, the losses of x' and of the transformation."""
        loss = self._stylist.expert_loss(
            pl_module, batch, lambda before, _, scores: pl_module.supervised_loss(batch.labels, before, scores)
        )
        return self._stylist.style_losses(pl_module, batch, loss)

    def client_state_dict(self) -> dict[str, Any]:
        """Returns the expert and the transformation."""
        return self._stylist.state_dict()

    def load_client_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the expert and the transformation."""
        self._stylist.load_state_dict(state)
