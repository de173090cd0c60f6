"""Cosine distance weight (CDW): clients whose model moved more in local training count more.

Zhuang et al., ACM TOMM 19(1s), 2023, Eq. 1-2; "weight reallocation" in the ACM MM 2020 paper.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytorch_lightning as pl
import torch
from torch import Tensor

from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.loop import FederationLoop
from fedreid_pl.federation.messages import ClientUpdate, RejectedUpdate
from fedreid_pl.functional.aggregation import normalize_weights
from fedreid_pl.functional.reweighting import cosine_distance


class Reweighting(FederationCallback):
    """Replaces the weights n_k by d_k, the change of the client's logits on one probe batch.

    Both passes are in eval mode, without gradients, on the same images without augmentation: training for zero
    steps gives exactly d_k = 0. Only the number d_k travels. Needs a callback that aggregates, such as
    `backbone_sync`, before it.
    """

    # server half

    def on_update(self, federation: FederationLoop, update: ClientUpdate) -> None:
        """An update without a distance cannot be weighed."""
        distance = update.metrics.get("cosine_distance")
        if distance is None or not 0 <= distance <= 2:
            raise RejectedUpdate(f"reports a cosine distance of {distance}")

    def on_aggregation_start(
        self, federation: FederationLoop, updates: Sequence[ClientUpdate], weights: dict[str, float]
    ) -> None:
        """p_k = d_k / sum d; if every d_k is zero the weights stay as they are, and the run says so."""
        distances = {update.client: update.metrics["cosine_distance"] for update in updates}
        mended = normalize_weights(distances)
        for client, distance in distances.items():
            federation.record("weights", client, "cosine_distance", distance)
        if mended is None:
            federation.warn("every cosine distance is zero or not finite; this round weighs by number of images")
        else:
            weights |= mended

    # client half

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Logits of the probe batch with the model as it was received."""
        self._probe = trainer.datamodule.probe_batch(pl_module.device)  # type: ignore[attr-defined]
        self._before = _logits(pl_module, self._probe)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """d_k of the same images with the trained model."""
        distance = cosine_distance(self._before, _logits(pl_module, self._probe))
        pl_module.outbox.metrics["cosine_distance"] = float(distance)
        del self._probe, self._before


@torch.no_grad()
def _logits(pl_module: pl.LightningModule, images: Tensor) -> Tensor:
    training = pl_module.training
    pl_module.eval()
    try:
        return pl_module.logits(images).float()
    finally:
        pl_module.train(training)
