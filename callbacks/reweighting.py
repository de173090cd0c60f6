"""Cosine distance weight (CDW): clients whose model moved more in local training count more.

Zhuang et al., ACM TOMM 19(1s), 2023, Eq. 1-2; "weight reallocation" in the ACM MM 2020 paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor

from fedreid_pl.config import Config
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.capabilities import Capability
from fedreid_pl.federation.messages import ClientJob, ClientUpdate, RejectedUpdate
from fedreid_pl.federation.server.loop import FederationLoop
from fedreid_pl.functional.aggregation import normalize_weights
from fedreid_pl.functional.randomness import derive_seed, seed_generators
from fedreid_pl.functional.reweighting import client_weights, cosine_distance, mix_weights


class Reweighting(FederationCallback):
    """Replaces the weights n_k by d_k, the change of the client's logits on one probe batch.

    Both passes are in eval mode, without gradients, on the same images without augmentation: training for zero
    steps gives exactly d_k = 0. Only the number d_k travels.

    Where clients share models (`clustering`), the weights of all clients of the round are divided by their sum
    within each model: proportional ones and the softmax are then those of the group alone.

    Args:
        by: score of a client: its cosine distance; its share of the images; or the same for all. Under the last
            two nothing is measured at the client.
        temperature: weights are the softmax of score / temperature; null: proportional to the score.
        mix: share of these weights, from 0 to 1; the rest is by number of images.
        probe: `eval` as above. `train` is what the published code does: the images are augmented, dropout is on,
            BatchNorm takes the batch's statistics, and those of the pass after training enter the running
            statistics of the model that is sent.
    """

    needs: ClassVar[tuple[Capability, ...]] = ("exchange", "weights", "sees_single_updates")

    def __init__(
        self,
        by: Literal["cosine_distance", "data_volume", "uniform"] = "cosine_distance",
        temperature: float | None = None,
        mix: float = 1.0,
        probe: Literal["eval", "train"] = "eval",
    ) -> None:
        if temperature is not None and not 0 < temperature < float("inf"):
            raise FedReIDError(f"callbacks.reweighting.temperature={temperature}: must be above 0 and finite, or null")
        if not 0 <= mix <= 1:
            raise FedReIDError(f"callbacks.reweighting.mix={mix}: must be from 0 to 1")
        self.by, self.temperature, self.mix, self.probe = by, temperature, mix, probe
        self._measures = by == "cosine_distance"

    def check(self, config: Config, data: FederatedData) -> None:
        """`probe=train` needs two images for the statistics of a batch."""
        if self._measures and self.probe == "train" and config.data.probe_size < 2:
            raise FedReIDError(
                f"data.probe_size={config.data.probe_size}: callbacks.reweighting.probe=train takes BatchNorm's "
                "statistics from the probe batch and needs at least 2 images"
            )

    # server half

    def on_distribute(self, federation: FederationLoop, job: ClientJob) -> ClientJob:
        """Under `probe=train`, the seed of the probe's dropout."""
        if not self._measures or self.probe == "eval":
            return job
        seed = derive_seed(federation.seed, federation.round, job.client, "probe")
        return replace(job, config={**job.config, "probe_seed": seed})

    def on_update(self, federation: FederationLoop, update: ClientUpdate) -> None:
        """An update without a distance cannot be weighed by it."""
        distance = update.metrics.get("cosine_distance")
        if self._measures and (distance is None or not 0 <= distance <= 2):
            raise RejectedUpdate(f"reports a cosine distance of {distance}")

    def on_aggregation_start(
        self, federation: FederationLoop, updates: Sequence[ClientUpdate], weights: dict[str, float]
    ) -> None:
        """p_k from the scores, by default d_k / sum d; if every d_k is zero the weights stay as they are, and the
        run says so."""
        images = normalize_weights({update.client: update.num_samples for update in updates}) or {}
        if self._measures:
            scores = {update.client: update.metrics["cosine_distance"] for update in updates}
            for client, distance in scores.items():
                federation.record("weights", client, "cosine_distance", distance)
        else:
            scores = images if self.by == "data_volume" else dict.fromkeys(images, 1.0)
        mended = client_weights(scores, self.temperature)
        if mended is None:
            federation.warn("every cosine distance is zero or not finite; this round weighs by number of images")
        else:
            weights |= mix_weights(mended, images, self.mix)

    # client half

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Logits of the probe batch with the model as it was received, which is left as it is."""
        if not self._measures:
            return
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        self._probe = datamodule.probe_batch(pl_module.device, augmented=self.probe == "train")
        buffers = [(value, value.clone()) for value in pl_module.buffers()] if self.probe == "train" else []
        self._before = self._logits(pl_module, "before")
        for value, old in buffers:
            value.copy_(old)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """d_k of the same images with the trained model."""
        if not self._measures:
            return
        distance = cosine_distance(self._before, self._logits(pl_module, "after"))
        pl_module.outbox.metrics["cosine_distance"] = float(distance)
        del self._probe, self._before
        if self.probe == "train" and trainer.world_size > 1:  # equal images, but not always equal bits
            for value in pl_module.buffers():
                if value.is_floating_point():
                    value.copy_(trainer.strategy.reduce(value.clone(), reduce_op="mean"))

    def _logits(self, pl_module: pl.LightningModule, moment: str) -> Tensor:
        if self.probe == "eval":
            return _logits(pl_module, self._probe)
        device = pl_module.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            seed_generators(derive_seed(pl_module.job.config["probe_seed"], moment))
            return _logits(pl_module, self._probe, training=True)


@torch.no_grad()
def _logits(pl_module: pl.LightningModule, images: Tensor, training: bool = False) -> Tensor:
    before = pl_module.training
    pl_module.train(training)
    try:
        return pl_module.logits(images).float()
    finally:
        pl_module.train(before)
