"""Cosine distance weight (CDW): clients whose logits change more in local training get larger weights.

Zhuang et al., ACM TOMM 19(1s), 2023, Eq. 1-2; called "weight reallocation" in the ACM MM 2020 paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from fedreid_pl.config import Config
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.capabilities import Capability
from fedreid_pl.federation.messages import ClientJob, ClientUpdate, DeclaredTensor, RejectedUpdate, State
from fedreid_pl.federation.method import Method
from fedreid_pl.functional.aggregation import normalize_weights
from fedreid_pl.functional.randomness import derive_seed, seed_generators, undisturbed
from fedreid_pl.functional.reweighting import client_weights, clip_weights, cosine_distance, mix_weights
from fedreid_pl.models.weights import copied

MOVING, FIXED = "cosine_distance", "cosine_distance_fixed"
"""Names of d_k: with the BatchNorm statistics after training, and with those before training."""
PREFIX = "reweighting."
"""Prefix of the names of changed statistics in a message."""

if TYPE_CHECKING:
    from fedreid_pl.federation.server.context import RoundContext


class Reweighting(FederationCallback):
    """Replaces the weights n_k by d_k, the change of the client's logits on one probe batch.

    The logits are computed before and after training, in eval mode, without gradients, on the same images without
    augmentation. So training for zero steps gives exactly d_k = 0. The client sends only the number d_k, and the same
    distance with BatchNorm's statistics from before training. As in the paper, d_k depends on these statistics: it
    changes with them even if no parameter changes.

    If clients share models (`clustering`), the weights of all clients of the round are divided by their sum within each
    model. Proportional and softmax weights then equal those computed within the group.

    Args:
        by: score of a client: its cosine distance; its share of the images; or the same value for all. With the last
            two, clients compute no distance.
        temperature: weights are the softmax of score / temperature; null makes them proportional to the score.
        mix: share of these weights, from 0 to 1; the rest is the weight by number of images.
        clip: limits weights to between 1 / clip and clip times the mean weight; null sets no limit.
        statistics: BatchNorm statistics of the pass after training. `moving`: those after training, as the paper
            defines the distance. `fixed`: those of the pass before training, so that the distance depends only on
            parameters.
        probe: `eval` as above. `train`: the images are augmented, dropout is on, BatchNorm uses batch statistics, and
            the statistics of the pass after training become part of the running statistics that the client sends.
            `code` is the behaviour of the published code: as `train`, but the pass before training is in eval mode in
            the first round and after an evaluation. In other rounds this pass changes the running statistics that the
            server sends to the next clients. The result then depends on the order of the clients, so only the
            sequential engine can run it.
    """

    needs: ClassVar[tuple[Capability, ...]] = ("exchange", "weights", "sees_single_updates")
    job_config: ClassVar[Mapping[str, type]] = {"probe_seed": int, "probe_first": str}
    methods: ClassVar[Mapping[str, Method]] = {
        "fedpav_rw": Method(
            title="Cosine distance weight (CDW)",
            paper="Zhuang et al., ACM TOMM 19(1s), 2023, Eq. 1-2",
            purpose="federation",
            does="weights clients by how much training changes their logits on one batch",
            exchanged="the backbone; the cosine distance",
            verified="distance and weights are compared with independent implementations; published figures are not "
            "reproduced",
        ),
    }

    def __init__(
        self,
        by: Literal["cosine_distance", "data_volume", "uniform"] = "cosine_distance",
        temperature: float | None = None,
        mix: float = 1.0,
        clip: float | None = None,
        statistics: Literal["moving", "fixed"] = "moving",
        probe: Literal["eval", "train", "code"] = "eval",
    ) -> None:
        if temperature is not None and not 0 < temperature < float("inf"):
            raise FedReIDError(f"callbacks.reweighting.temperature={temperature}: must be above 0 and finite, or null")
        if not 0 <= mix <= 1:
            raise FedReIDError(f"callbacks.reweighting.mix={mix}: must be from 0 to 1")
        if clip is not None and not 1 <= clip < float("inf"):
            raise FedReIDError(f"callbacks.reweighting.clip={clip}: must be at least 1 and finite, or null")
        if statistics == "fixed" and probe != "eval":
            raise FedReIDError(
                f"callbacks.reweighting.statistics=fixed: has no effect with callbacks.reweighting.probe={probe}, "
                "which uses the statistics of the probe batch; set statistics=moving or probe=eval"
            )
        self.by, self.temperature, self.mix, self.probe = by, temperature, mix, probe
        self.clip, self.statistics = clip, statistics
        self._distance = FIXED if statistics == "fixed" else MOVING
        self._measures = by == "cosine_distance"
        self._moved: State = {}
        if probe == "code" and self._measures:
            self.needs = (*type(self).needs, "sequential_order")  # type: ignore[misc]

    def check(self, config: Config, data: FederatedData) -> None:
        """Checks that the probe batch has two images if BatchNorm uses its statistics.

        Raises:
            FedReIDError: if the probe batch has fewer images and `probe` is not `eval`.
        """
        if self._measures and self.probe != "eval" and config.data.probe_size < 2:
            raise FedReIDError(
                f"data.probe_size={config.data.probe_size}: must be at least 2, because "
                f"callbacks.reweighting.probe={self.probe} computes BatchNorm's statistics from the probe batch"
            )

    # server half

    def on_round_start(self, federation: RoundContext) -> None:
        """Deletes the running statistics that clients have changed in the last round."""
        self._moved = {}

    def on_distribute(self, federation: RoundContext, job: ClientJob) -> ClientJob:
        """Adds the seed of the probe's dropout unless `probe=eval`; with `code` also the changed statistics."""
        if not self._measures or self.probe == "eval":
            return job
        seed = derive_seed(federation.seed, federation.round, job.client, "probe")
        job = replace(job, config={**job.config, "probe_seed": seed})
        if self.probe == "train":
            return job
        if (federation.round - 1) % federation.config.evaluate_every == 0:
            return replace(job, config={**job.config, "probe_first": "eval"})
        backbone = {**job.backbone, **self._moved}
        statistics = {PREFIX + name: backbone[name] for name in federation.buffer_names & backbone.keys()}
        return replace(job, backbone=backbone, extras={**job.extras, **statistics})

    def on_update(self, federation: RoundContext, update: ClientUpdate) -> None:
        """Checks that the update has a valid distance, and stores changed running statistics.

        Raises:
            RejectedUpdate: if the cosine distance is missing or not from 0 to 2.
        """
        distance = update.metrics.get(self._distance)
        if self._measures and (distance is None or not 0 <= distance <= 2):
            raise RejectedUpdate(f"the client reports a cosine distance of {distance}, expected a value from 0 to 2")
        own = {name: value for name, value in update.extras.items() if name.startswith(PREFIX)}
        self._moved |= {name.removeprefix(PREFIX): value for name, value in own.items()}

    def on_aggregation_start(
        self, federation: RoundContext, updates: Sequence[ClientUpdate], weights: dict[str, float]
    ) -> None:
        """Sets the weights from the scores, by default `d_k / sum d`.

        If every d_k is zero or not finite, the weights stay as they are, and the run prints a warning.
        """
        images = normalize_weights({update.client: update.num_samples for update in updates}) or {}
        if self._measures:
            scores = {update.client: update.metrics[self._distance] for update in updates}
            for update in updates:
                for name in (MOVING, FIXED):
                    if 0 <= update.metrics.get(name, -1.0) <= 2:
                        federation.record("weights", update.client, name, update.metrics[name])
        else:
            scores = images if self.by == "data_volume" else dict.fromkeys(images, 1.0)
        mended = client_weights(scores, self.temperature)
        if mended is None:
            federation.warn("every cosine distance is zero or not finite; this round uses weights by number of images")
        else:
            if self.clip is not None:
                mended = clip_weights(mended, self.clip)
            weights |= mix_weights(mended, images, self.mix)

    # client half

    def declared_extras(self, network: nn.Module) -> list[DeclaredTensor]:
        """Returns, with `probe=code`, the running statistics that other clients may have changed."""
        if self.probe != "code":
            return []
        buffers = dict(network.named_buffers())
        return [DeclaredTensor(PREFIX + name, tuple(value.shape), value.dtype) for name, value in buffers.items()]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Computes both passes if the client has no training batches, because Lightning then calls no training hook."""
        if self._measures and not len(trainer.datamodule.train_dataloader()):  # type: ignore[attr-defined]
            self.on_train_start(trainer, pl_module)
            self.on_train_end(trainer, pl_module)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Computes the logits of the probe batch with the received model, which does not change."""
        if not self._measures:
            return
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        self._probe = datamodule.probe_batch(pl_module.device, augmented=self.probe != "eval")
        self._statistics = [value.clone() for value in pl_module.buffers()]
        self._before = self._logits(pl_module, "before")
        if self.probe == "eval":
            return
        moved = {PREFIX + name: value for name, value in pl_module.backbone.named_buffers()}
        asked = [name for name in moved if name in pl_module.job.extras]
        pl_module.outbox.extras |= copied({name: moved[name] for name in asked})
        _set_buffers(pl_module, self._statistics)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reports d_k of the same images with the trained model, and with its parameters but the old statistics."""
        if not self._measures:
            return
        distance = cosine_distance(self._before, self._logits(pl_module, "after"))
        pl_module.outbox.metrics[MOVING] = float(distance)
        if self.probe == "eval":
            trained = [value.clone() for value in pl_module.buffers()]
            _set_buffers(pl_module, self._statistics)
            pl_module.outbox.metrics[FIXED] = float(cosine_distance(self._before, self._logits(pl_module, "after")))
            _set_buffers(pl_module, trained)
        del self._probe, self._before, self._statistics
        if self.probe != "eval" and trainer.world_size > 1:  # the same images do not always give equal bits
            for value in pl_module.buffers():
                if value.is_floating_point():
                    value.copy_(trainer.strategy.reduce(value.clone(), reduce_op="mean"))

    def _logits(self, pl_module: pl.LightningModule, moment: str) -> Tensor:
        if self.probe == "eval":
            return _logits(pl_module, self._probe)
        device, training = pl_module.device, moment == "after" or "probe_first" not in pl_module.job.config
        with undisturbed(device):
            seed_generators(derive_seed(pl_module.job.config["probe_seed"], moment))
            return _logits(pl_module, self._probe, training)


@torch.no_grad()
def _set_buffers(pl_module: pl.LightningModule, values: Sequence[Tensor]) -> None:
    for buffer, value in zip(pl_module.buffers(), values, strict=True):
        buffer.copy_(value)


@torch.no_grad()
def _logits(pl_module: pl.LightningModule, images: Tensor, training: bool = False) -> Tensor:
    before = pl_module.training
    pl_module.train(training)
    try:
        return pl_module.logits(images).float()
    finally:
        pl_module.train(before)
