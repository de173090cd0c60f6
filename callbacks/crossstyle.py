"""CrossStyle: training images get the colour statistics of other images of the batch.

Tang et al., "CrossNorm and SelfNorm for Generalization under Distribution Shifts", ICCV 2021.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from fedreid_pl.client import ReIDClient
from fedreid_pl.data.batch import TrainBatch
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.capabilities import Capability
from fedreid_pl.federation.method import Method
from fedreid_pl.functional.crossstyle import cross_style, draw_box, whole_box
from fedreid_pl.functional.randomness import derive_seed
from fedreid_pl.models.whole_batch import images_of_whole_batch, of_whole_batch


class CrossStyle(FederationCallback):
    """Applies CrossNorm to training images: each image gets the channel means and deviations of a random partner's box.

    The comparison tables of DACS (Yang et al., AAAI 2024) call this method CrossStyle, and the options follow the
    published code of DACS: CrossNorm between two images on pixels, with random boxes for content and style
    (`beta=0.5`), in every batch (`p=1`). All images of a batch have the same boxes, as in that code. Variances are
    population variances; that code uses unbiased ones. SelfNorm, the other part of the paper by Tang et al., is not
    included. Each client chooses partners among its own images. The method exchanges nothing and saves no state.

    Args:
        p: probability that a batch is changed; with 0 the result equals FedPav's bit for bit.
        crop: `both`: a box of the image gets the statistics of a box of its partner. `content` or `style`: only this
            one is a box, and the other is the whole image. `neither`: both are whole images.
        beta: parameter of the Beta distribution of a box's area.
        least_area: share of the image's area; every box is larger.
    """

    needs: ClassVar[tuple[Capability, ...]] = ("exchange",)
    methods: ClassVar[Mapping[str, Method]] = {
        "crossstyle": Method(
            title="CrossStyle",
            paper="Tang et al., ICCV 2021 (CrossNorm), on images as in the published code of DACS",
            purpose="unseen places",
            does="gives a box of every image the colour statistics of a box of another image of the batch",
            verified="the statistics are compared with a loop in float64; with p = 0 the result equals FedPav's bit "
            "for bit; name and settings are those of the published code of DACS",
        ),
    }

    def __init__(
        self,
        p: float = 1.0,
        crop: Literal["both", "content", "style", "neither"] = "both",
        beta: float = 0.5,
        least_area: float = 0.1,
    ) -> None:
        if not 0 <= p <= 1:
            raise FedReIDError(f"callbacks.crossstyle.p={p}: must be from 0 to 1")
        if not 0 < beta < math.inf:
            raise FedReIDError(f"callbacks.crossstyle.beta={beta}: must be above 0 and finite")
        if not 0 <= least_area <= 0.5:
            raise FedReIDError(f"callbacks.crossstyle.least_area={least_area}: must be from 0 to 0.5")
        self.p, self.crop, self.beta, self.least_area = p, crop, beta, least_area

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seeds the random numbers of the turn."""
        self._draws = np.random.default_rng(derive_seed(pl_module.seed, "crossstyle"))

    def training_images(self, pl_module: ReIDClient, batch: TrainBatch) -> Tensor:
        """Returns the images `[B, 3, H, W]` with the statistics of their partners."""
        images, draws = batch.images, self._draws
        if draws.random() >= self.p:
            return images
        total, own = images_of_whole_batch(images)
        partners = torch.from_numpy(draws.permutation(total))[own].to(images.device)
        size = (images.shape[2], images.shape[3])
        content, style = (
            draw_box(*size, self.beta, self.least_area, draws) if self.crop in ("both", part) else whole_box(*size)
            for part in ("content", "style")
        )
        return cross_style(images, partners, content, style, gather=of_whole_batch)
