"""A control for methods that train on two views of a batch: here the second view is the unchanged batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from fedreid_pl.client import ReIDClient
from fedreid_pl.data.batch import TrainBatch
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.capabilities import Capability
from fedreid_pl.federation.method import Method


class SecondView(FederationCallback):
    """Computes every batch a second time, on the same images, and adds the loss of this pass.

    A method that restyles a copy of the images computes twice as much, has about twice the gradient and passes each
    batch through BatchNorm twice. If such a method is better than this control, the restyled images are the reason.

    Args:
        weight: weight of the second loss; 0 skips the second pass, and the result equals FedPav's bit for bit.
    """

    needs: ClassVar[tuple[Capability, ...]] = ("exchange",)
    methods: ClassVar[Mapping[str, Method]] = {
        "fedpav_twice": Method(
            title="FedPav with two passes",
            paper="no paper; a control experiment",
            purpose="baseline",
            does="computes the loss of every batch twice, like methods with a second view of the images",
            verified="without dropout, the gradient is twice that of one pass",
        ),
    }

    def __init__(self, weight: float = 1.0) -> None:
        if not 0 <= weight < math.inf:
            raise FedReIDError(f"callbacks.second_view.weight={weight}: must be a finite number, at least 0")
        self.weight = weight

    def training_loss(
        self, pl_module: ReIDClient, batch: TrainBatch, embeddings: Tensor, features: Tensor, logits: Tensor
    ) -> Tensor | None:
        """Returns `weight` times the loss of a second pass over the same images."""
        if not self.weight:
            return None
        second, _, scores = pl_module.second_pass(batch.images)
        return self.weight * pl_module.supervised_loss(batch.labels, second, scores)
