"""MixStyle: training mixes the styles of a batch's images after the first stages of the network.

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
    """Mixes the instance statistics of feature maps after the first residual stages, only in training steps.

    Each client mixes the styles of its own images. The method exchanges nothing and has no parameters. After each of
    these stages, with probability p, every image of the batch gets a random partner from the same batch and keeps a
    share f ~ Beta(alpha, alpha) of its own style. Domain labels are not used ("random shuffle" in the paper).

    Variances are population variances; the authors' code uses unbiased ones. If several processes share a batch,
    partners are drawn from the whole batch, so the number of processes changes results only by rounding.

    Args:
        p: probability that a stage mixes a batch; with 0 the result equals FedPav's bit for bit.
        alpha: parameter of the Beta distribution. With 0.1, as in the paper, one of the two styles usually dominates.
        stages: number of residual stages, counted from the first, whose output is mixed. The paper's re-identification
            network mixes after the first two.
    """

    needs: ClassVar[tuple[Capability, ...]] = ("exchange",)
    methods: ClassVar[Mapping[str, Method]] = {
        "mixstyle": Method(
            title="MixStyle",
            paper="Zhou et al., ICLR 2021, Eq. 4-6",
            purpose="unseen places",
            does="mixes means and deviations of feature maps between images of a batch, after the first stages",
            verified="the equations are compared with a loop in float64; with p = 0 the result equals FedPav's bit "
            "for bit; unlike the authors' code, variances are population variances",
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
        """Checks that the network has enough residual stages and is not compiled.

        Raises:
            FedReIDError: if one of these conditions does not hold.
        """
        check_stages(config.model, config.trainer.compile, "mixstyle", self.stages)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seeds the random numbers of the turn."""
        self._draws = np.random.default_rng(derive_seed(pl_module.seed, "mixstyle"))

    def feature_maps(self, pl_module: ReIDClient, batch: TrainBatch, stage: int, maps: Tensor) -> Tensor:
        """Returns the maps `[B, C, h, w]` with mixed styles."""
        if stage >= self.stages or self._draws.random() >= self.p:
            return maps
        total, own = images_of_whole_batch(maps)
        factors = torch.from_numpy(self._draws.beta(self.alpha, self.alpha, total))[own]
        partners = torch.from_numpy(self._draws.permutation(total))[own]
        return mix_style(maps, factors.to(maps.device), partners.to(maps.device), gather=of_whole_batch)
