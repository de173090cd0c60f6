"""A client: an exchanged backbone and a head that never leaves, as a LightningModule."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedreid_pl.config import LossConfig, OptimConfig
from fedreid_pl.data.batch import TrainBatch
from fedreid_pl.functional.batch_part import current_part, working_on
from fedreid_pl.functional.randomness import derive_seed, seed_generators, undisturbed
from fedreid_pl.functional.schedule import rate_factor
from fedreid_pl.functional.triplet import batch_hard_triplet
from fedreid_pl.metrics.retrieval import RankedSets
from fedreid_pl.metrics.tested_module import TestedModule
from fedreid_pl.models.batch_norm import average_statistics
from fedreid_pl.models.clones import Clones
from fedreid_pl.models.compiled import CompiledTrunk
from fedreid_pl.models.embedder import embeddings_of
from fedreid_pl.models.optimizer import build_sgd, momentum_of, parameter_groups, restore_momentum
from fedreid_pl.models.stages import changing

TrainingLoss = Callable[["ReIDClient", TrainBatch, Tensor, Tensor, Tensor], Tensor | None]
"""(client, batch, embeddings `[B, D]`, features `[B, D]`, logits `[B, identities]`) -> what a step adds to its loss."""
ImagesHook = Callable[["ReIDClient", TrainBatch], Tensor]
"""(client, batch) -> images `[B, 3, H, W]` that the step trains on in place of the batch's."""
MapsHook = Callable[["ReIDClient", TrainBatch, int, Tensor], Tensor]
"""(client, batch, number of a residual stage from 0, its maps `[B, C, h, w]`) -> maps that the next stage gets."""


@dataclass
class Outbox:
    """What the client will send: filled by the client halves of callbacks during a turn."""

    backbone: dict[str, Tensor] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    extras: dict[str, Tensor] = field(default_factory=dict)


class ReIDClient(TestedModule):
    """One client's model during one turn.

    The backbone is lent for the turn; the head is the client's own. Training is cross-entropy over the
    client's identities (the IDE baseline), plus the batch-hard triplet loss if `loss.triplet` is not zero, plus the
    losses that callbacks add; testing fills one retrieval metric per test set from loaders in the order query 0,
    gallery 0, query 1, gallery 1, ...

    Args:
        backbone: maps normalised images `[B, 3, H, W]` to features `[B, D]`. The triplet loss wants its method
            `embeddings`, a bottleneck with the head's learning rate its module `bottleneck`.
        head: maps features to logits `[B, identities]`.
        optim: SGD and its schedule.
        epochs_before: epochs this run has trained before the turn, for the schedule.
        job: what the server sent, read by the client halves of callbacks (round, client, backbone, config).
        loss: what is added to plain cross-entropy.
        total_epochs: epochs of the whole run, for the cosine schedule; `None`: the run ends with this turn.
        retrieval_options: those of the test sets' `ReIDRetrieval`.
        inspect: called with the name of every test set and what its scores were computed from.
        compiled: the backbone's trunk for full training batches; `None`: nothing is compiled.
        optimizer_state: of an earlier turn, from which the optimizer starts; `None`: from zero momentum.
        losses: what callbacks add to the loss of every step, by the name under which its mean is reported.
        images: what callbacks make of the images of a step, one after the other.
        maps: what callbacks make of feature maps between the trunk's stages, in the step's own forward pass alone.
        seed: of the turn, from which callbacks derive what they draw (`derive_seed(seed, purpose)`).

    Attributes:
        clones: further networks of this turn, see `clone_backbone`.
        classification_weight: factor of cross-entropy; a callback that puts another loss in its place sets 0.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        optim: OptimConfig,
        epochs_before: int = 0,
        job: Any = None,
        loss: LossConfig | None = None,
        total_epochs: int | None = None,
        retrieval_options: Mapping[str, Any] | None = None,
        inspect: Callable[[str, RankedSets], None] | None = None,
        compiled: CompiledTrunk | None = None,
        optimizer_state: Mapping[str, Any] | None = None,
        losses: Mapping[str, TrainingLoss] | None = None,
        images: Sequence[ImagesHook] = (),
        maps: Sequence[MapsHook] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(backbone, retrieval_options, inspect)
        self.head = head
        self.optim = optim
        self.loss = loss or LossConfig()
        self.epochs_before = epochs_before if optim.scope == "run" else 0
        self.total_epochs = total_epochs if optim.scope == "run" else None
        self.job = job
        self.outbox = Outbox()
        self._compiled = compiled
        self._optimizer_state = optimizer_state
        self._added: dict[str, tuple[float, TrainingLoss]] = {}
        if self.loss.triplet:
            self._added["triplet"] = (self.loss.triplet, _triplet)
        self._added |= {name: (1.0, term) for name, term in (losses or {}).items()}
        self._images, self._maps, self.seed = tuple(images), tuple(maps), seed
        self.classification_weight, self._passes = 1.0, 0
        self.clones = Clones()
        self._scaled, self._world = False, 1
        self._losses: list[Tensor] = []
        self._terms: dict[str, list[Tensor]] = {name: [] for name in self._added}
        self._predicted: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._reported: list[float] = []

    def __setattr__(self, name: str, value: Any) -> None:
        """As usual, but fast for the name of the running hook, which Lightning sets around every hook."""
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def logits(self, images: Tensor) -> Tensor:
        """Scores over the client's identities `[B, identities]`."""
        scores: Tensor = self.head(self.backbone(images))
        return scores

    # a second network

    def clone_backbone(self, trainable: bool = True, entries: Collection[str] | None = None) -> nn.Module:
        """Returns a copy of the backbone as it is now, for this turn alone.

        The copy goes to the device, into the strategy and, if `trainable`, into the optimizer at the backbone's rates;
        its bytes are reported as `cost/cloned_bytes`. It is never exchanged: what has to last until the next turn goes
        through the callback's `client_state_dict`. After the turn its memory is freed.

        Args:
            trainable: the copy is trained by what `training_loss` returns, in every step. A callback makes such a copy
                in `setup`, where the backbone has the run's initial weights. `False`: the copy has no gradients and
                stays in eval mode, and may be made in any hook of the turn.
            entries: names of the parameters and buffers that the copy has of its own, such as BatchNorm's; the others
                are `None` in it. `torch.func.functional_call(backbone, {**dict(copy.named_parameters()),
                **dict(copy.named_buffers())}, (images,))` runs the backbone with them. `None`: all.

        Raises:
            RuntimeError: for a trainable copy when the optimizer exists already.
        """
        return self.clones.clone(self.backbone, trainable, entries)

    def clone_head(self, trainable: bool = True) -> nn.Module:
        """Returns a copy of the head as it is now, at the head's rate; otherwise as `clone_backbone`."""
        return self.clones.clone(self.head, trainable)

    def attach(self, layers: nn.Module, rate: float | None = None) -> nn.Module:
        """Takes in layers of a callback's own, such as a learned transformation, and trains them in this turn.

        Made in the callback's `setup`, they go where trainable copies go; each parameter has to be used in every step.

        Args:
            layers: neither exchanged nor kept; `client_state_dict` is for that.
            rate: learning rate; `None`: that of the backbone.

        Raises:
            RuntimeError: when the optimizer exists already.
        """
        return self.clones.attach(layers, self.optim.lr_backbone if rate is None else rate)

    # a second view of a step's images

    def second_pass(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns (embeddings `[B, D]`, features `[B, D]`, logits) of further images, for a callback's loss.

        The normalised images `[B, 3, H, W]` go through the model that is trained; BatchNorm sees them. Dropout draws
        numbers of its own, so that the step's other numbers do not depend on it.
        """
        with undisturbed(self.device):
            seed_generators(derive_seed(self.seed, "second pass", self._passes))
            embeddings, features = embeddings_of(self.backbone, images)
        self._passes += 1
        return embeddings, features, self.head(features)

    def supervised_loss(
        self, labels: Tensor, embeddings: Tensor, logits: Tensor, classification: float = 1.0
    ) -> Tensor:
        """Returns the configuration's loss: `classification` x cross-entropy, plus `loss.triplet` x triplet loss."""
        loss, weight = classification * self._cross_entropy(logits, labels), self.loss.triplet
        return loss + weight * batch_hard_triplet(embeddings, labels, self.loss.margin) if weight else loss

    # Lightning's hooks

    def setup(self, stage: str) -> None:
        """Reads what the turn depends on from the Trainer."""
        self._world = self.trainer.world_size
        # A step that 16-bit scaling skips leaves fused SGD's momentum uninitialised.
        self._scaled = self.trainer.precision == "16-mixed"

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        """Returns the mean loss of this part of the batch, times its share of the whole; triplets are of the part."""
        with working_on(batch.part) if batch.part else nullcontext():
            if self._compiled is None:
                loss = self._loss(batch)
            else:
                self.zero_grad(set_to_none=True)  # gradients of the step before may lie in memory that a graph reuses
                with self._compiled.full_batch(batch.images):
                    loss = self._loss(batch)
        return loss * batch.share if batch.share != 1.0 else loss

    def _loss(self, batch: TrainBatch) -> Tensor:
        whole = self._world > 1 and current_part() is None  # every process computes the same, to be reported once
        for change in self._images:
            batch = batch._replace(images=change(self, batch))
        labels = batch.labels
        if self._added:
            with self._own_pass(batch):
                embeddings, features = embeddings_of(self.backbone, batch.images)
            logits = self.head(features)
            loss = self.classification_weight * self._cross_entropy(logits, labels)
            for name, (weight, term) in self._added.items():
                value = term(self, batch, embeddings, features, logits)
                if value is not None:
                    loss = loss + weight * value
                self._terms[name].append(loss.new_zeros(()) if value is None else value.detach())
        else:
            with self._own_pass(batch):
                logits = self.logits(batch.images)
            loss = self.classification_weight * self._cross_entropy(logits, labels)
        self._losses.append(loss.detach())
        self._predicted.append(logits.detach().argmax(1))
        self._labels.append(labels)
        self._reported.append(1.0 / self._world if whole else 1.0)
        return loss

    def _own_pass(self, batch: TrainBatch) -> AbstractContextManager[None]:
        if not self._maps:
            return nullcontext()
        stages = self.backbone.trunk.residual_stages()  # type: ignore[union-attr, operator]
        return changing(stages, [partial(hook, self, batch) for hook in self._maps])

    def on_train_epoch_start(self) -> None:
        """Sets the learning rates of the epoch."""
        optimizer = self.optimizers()
        optim, epoch = self.optim, self.epochs_before + self.current_epoch
        total = self.total_epochs or self.epochs_before + (self.trainer.max_epochs or 0)
        factor = rate_factor(epoch, optim.schedule, optim.step, optim.gamma, optim.warmup, total, optim.milestones)
        for group in optimizer.param_groups:  # type: ignore[union-attr]
            group["lr"] = group["base_lr"] * factor

    def on_train_epoch_end(self) -> None:
        """Under several processes, averages the running statistics that each took from its own images."""
        if self.trainer.world_size > 1:
            average_statistics((self.backbone, self.clones), partial(self.trainer.strategy.reduce, reduce_op="mean"))

    def on_train_end(self) -> None:
        """Reports the turn's mean loss, training accuracy and mean of every added loss, without its weight."""
        losses = torch.stack(self._losses)  # a number per batch
        hits = torch.stack([(part == own).sum() for part, own in zip(self._predicted, self._labels, strict=True)])
        reported = losses.new_tensor(self._reported)
        counts = losses.new_tensor([len(own) for own in self._labels]) * reported
        sums = [(losses * counts).sum(), (hits * reported).sum()]
        sums += [(torch.stack(terms).to(losses.dtype) * counts).sum() for terms in self._terms.values()]
        sums.append(counts.sum())
        *totals, images = self.trainer.strategy.reduce(torch.stack(sums), reduce_op="sum").tolist()
        names = ("train/loss", "train/accuracy", *(f"train/{name}" for name in self._terms))
        self.outbox.metrics |= {name: total / images for name, total in zip(names, totals, strict=True)}
        if self.clones:
            self.outbox.metrics["cost/cloned_bytes"] = float(self.clones.nbytes)
        self._losses, self._predicted, self._labels, self._reported = [], [], [], []
        self._terms = {name: [] for name in self._terms}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """New SGD with one rate for the backbone and one for the head; trainable copies have groups of their own.

        With `optim.bottleneck=head` a third group holds the backbone's bottleneck, at the head's rate.
        """
        fused = self.device.type in ("cpu", "cuda") and not self._scaled
        self.clones.closed = True
        groups = parameter_groups(self.backbone, self.head, self.clones, self.optim)
        optimizer = build_sgd(groups, self.optim, fused)
        if self._optimizer_state:
            restore_momentum(optimizer, self.named_parameters(), self._optimizer_state["momentum"])
            self.trainer.precision_plugin.load_state_dict(self._optimizer_state["precision"])
        return optimizer

    def optimizer_state(self) -> dict[str, Any]:
        """Copies of SGD's momentum buffers after training, by parameter name, and 16-mixed precision's loss scale."""
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        momentum = momentum_of(optimizer, self.named_parameters())
        return {"momentum": momentum, "precision": self.trainer.precision_plugin.state_dict()}

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=self.loss.label_smoothing)


def _triplet(client: ReIDClient, batch: TrainBatch, embeddings: Tensor, features: Tensor, logits: Tensor) -> Tensor:
    return batch_hard_triplet(embeddings, batch.labels, client.loss.margin)
