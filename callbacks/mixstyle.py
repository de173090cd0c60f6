"""MixStyle: training mixes the styles of a batch's images in the first stages of the network.

Zhou et al., "Domain Generalization with MixStyle", ICLR 2021.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from fedreid_pl.client import ReIDClient
from fedreid_pl.config import Config
from fedreid_pl.data.batch import TrainBatch
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.capabilities import Capability
from fedreid_pl.federation.method import Method
from fedreid_pl.functional.mixstyle import mix_style
from fedreid_pl.functional.randomness import derive_seed
from fedreid_pl.models.stages import check_stages
from fedreid_pl.models.whole_batch import images_of_whole_batch, of_whole_batch


class MixStyle(FederationCallback):
    """Mixes the instance statistics of feature maps after the first residual stages, in training steps alone.

    Each client mixes the styles of its own images; nothing is exchanged for it, and there are no parameters. After each
    of the stages, with probability p, every image of the batch gets a random partner of the same batch and a share
    f ~ Beta(alpha, alpha) of its own style. Domain labels are not used (the paper's "random shuffle").

    Variances are those of the population; the authors' code takes the unbiased ones. Partners are drawn from the
    whole batch when several processes share it, so that the number of processes changes rounding alone.

    Args:
        p: probability with which a stage mixes a batch; 0 is FedPav to the bit.
        alpha: of the Beta distribution; the paper's 0.1 makes mixtures that are mostly of one of the two styles.
        stages: the maps after this many first residual stages are mixed. The paper's re-identification network mixes
            after the first two.
    """

    needs: ClassVar[tuple[Capability, ...]] = ("exchange",)
    methods: ClassVar[Mapping[str, Method]] = {
        "mixstyle": Method(
            title="MixStyle",
            paper="Zhou et al., ICLR 2021, Eq. 4-6",
            purpose="unseen places",
            does="mixes the means and deviations of feature maps of a batch's images after the first stages",
            verified="the equations against a loop in float64; p = 0 is FedPav to the bit; the authors' code takes "
            "unbiased variances",
        ),
    }

    def __init__(self, p: float = 0.5, alpha: float = 0.1, stages: int = 2) -> None:
        if not 0 <= p <= 1:
            raise FedReIDError(f"callbacks.mixstyle.p={p}: must be from 0 to 1")
        if not 0 < alpha < math.inf:
            raise FedReIDError(f"callbacks.mixstyle.alpha={alpha}: must be above 0 and finite")
        if stages < 1:
            raise FedReIDError(f"callbacks.mixstyle.stages={stages}: must be at least 1")
        self.p, self.alpha, self.stages = p, alpha, stages

    def check(self, config: Config, data: FederatedData) -> None:
        """Refuses a network without so many residual stages, and a compiled one."""
        check_stages(config.model, config.trainer.compile, "mixstyle", self.stages)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the turn's random numbers."""
        self._draws = np.random.default_rng(derive_seed(pl_module.seed, "mixstyle"))

    def feature_maps(self, pl_module: ReIDClient, batch: TrainBatch, stage: int, maps: Tensor) -> Tensor:
        """Maps with mixed styles `[B, C, h, w]`."""
        if stage >= self.stages or self._draws.random() >= self.p:
            return maps
        total, own = images_of_whole_batch(maps)
        factors = torch.from_numpy(self._draws.beta(self.alpha, self.alpha, total))[own]
        partners = torch.from_numpy(self._draws.permutation(total))[own]
        return mix_style(maps, factors.to(maps.device), partners.to(maps.device), gather=of_whole_batch)
