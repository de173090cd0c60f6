"""Defines a client as a LightningModule: a backbone that is exchanged, and a head that stays at the client."""

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
from fedreid_pl.errors import FedReIDError
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
from fedreid_pl.training_record import TrainingRecord

TrainingLoss = Callable[["ReIDClient", TrainBatch, Tensor, Tensor, Tensor], Tensor | None]
"""(client, batch, embeddings `[B, D]`, features `[B, D]`, logits `[B, identities]`) -> term added to a step's loss."""
ImagesHook = Callable[["ReIDClient", TrainBatch], Tensor]
"""(client, batch) -> images `[B, 3, H, W]` that the step trains on in place of the images of the batch."""
MapsHook = Callable[["ReIDClient", TrainBatch, int, Tensor], Tensor]
"""(client, batch, index of a residual stage from 0, its maps `[B, C, h, w]`) -> input maps of the next stage."""


@dataclass
class Outbox:
    """Content of the client's next update. The client halves of callbacks fill it during a turn."""

    backbone: dict[str, Tensor] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    extras: dict[str, Tensor] = field(default_factory=dict)


class ReIDClient(TestedModule):
    """Trains and tests one client's model during one turn, the client's part of a round.

    All clients of a process share the backbone object; the head belongs to the client. The training loss is
    cross-entropy over the client's identities (the IDE baseline), plus the batch-hard triplet loss if `loss.triplet`
    is not zero, plus the losses of callbacks. Testing fills one retrieval metric per test set from loaders in the
    order query 0, gallery 0, query 1, gallery 1, ...

    Args:
        backbone: maps normalised images `[B, 3, H, W]` to features `[B, D]`. The triplet loss requires its method
            `embeddings`. A bottleneck with the head's learning rate requires its module `bottleneck`.
        head: maps features to logits `[B, identities]`.
        optim: settings of SGD and its schedule.
        epochs_before: epochs that the run has trained before this turn, for the schedule.
        job: the server's message (round, client, backbone, config), which the client halves of callbacks read.
        loss: weights of the loss terms.
        total_epochs: epochs of the whole run, for the cosine schedule; `None`: the run ends with this turn.
        retrieval_options: arguments of the test sets' `ReIDRetrieval`.
        inspect: called with the name of every test set and the ranked data behind its scores.
        compiled: the compiled trunk for full training batches; `None`: no compilation.
        optimizer_state: optimizer state of an earlier turn; `None`: the momentum starts at zero.
        losses: loss terms of callbacks, by the name under which their mean is logged.
        images: image transforms of callbacks, applied in order.
        maps: transforms of callbacks for the feature maps between the trunk's stages. Only the main forward pass of a
            step applies them.
        seed: seed of the turn, from which callbacks derive their random numbers (`derive_seed(seed, purpose)`).

    Attributes:
        clones: further networks of this turn, see `clone_backbone`.
        classification_weight: factor of the cross-entropy; a callback that replaces this loss sets it to 0.
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
        self._record = TrainingRecord(self._added)

    def __setattr__(self, name: str, value: Any) -> None:
        """Sets an attribute; fast for the name of the running hook, which Lightning sets around every hook."""
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def logits(self, images: Tensor) -> Tensor:
        """Returns the logits over the client's identities, `[B, identities]`."""
        scores: Tensor = self.head(self.backbone(images))
        return scores

    # a second network

    def clone_backbone(self, trainable: bool = True, entries: Collection[str] | None = None) -> nn.Module:
        """Returns a copy of the backbone in its current state, which exists for this turn only.

        The copy moves to the device and into the strategy. If `trainable`, the optimizer trains it at the backbone's
        learning rates. Its size is logged as `cost/cloned_bytes`. The copy is never exchanged; to save a part of it
        until the next turn, use the callback's `client_state_dict`. Its memory is freed after the turn.

        Args:
            trainable: `True`: the loss of the callback's `training_loss` trains the copy in every step. Create such a
                copy in `setup`, where the backbone has the run's initial weights. `False`: the copy has no gradients
                and stays in eval mode; create it in any hook of the turn.
            entries: names of the parameters and buffers that are copied, such as those of BatchNorm; the others are
                `None` in the copy. `torch.func.functional_call(backbone, {**dict(copy.named_parameters()),
                **dict(copy.named_buffers())}, (images,))` runs the backbone with the copied entries. `None`: all.

        Raises:
            RuntimeError: if `trainable` and the optimizer already exists.
        """
        return self.clones.clone(self.backbone, trainable, entries)

    def clone_head(self, trainable: bool = True) -> nn.Module:
        """Returns a copy of the head in its current state, as `clone_backbone` does, at the head's learning rate."""
        return self.clones.clone(self.head, trainable)

    def attach(self, layers: nn.Module, rate: float | None = None) -> nn.Module:
        """Adds layers of a callback, such as a learned transformation, to the training of this turn.

        Call this method in the callback's `setup`. The layers are handled like trainable copies (`clone_backbone`).
        Every step has to use every parameter.

        Args:
            layers: the layers. They are not exchanged; to save them until the next turn, use `client_state_dict`.
            rate: learning rate; `None`: the backbone's learning rate.

        Raises:
            RuntimeError: if the optimizer already exists.
        """
        return self.clones.attach(layers, self.optim.lr_backbone if rate is None else rate)

    # a second view of a step's images

    def second_pass(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns (embeddings `[B, D]`, features `[B, D]`, logits) of further images, for a callback's loss.

        The normalised images `[B, 3, H, W]` pass through the model in training; they update the BatchNorm statistics.
        Dropout uses separate random numbers, so the random numbers of the main pass do not change.
        """
        with undisturbed(self.device):
            seed_generators(derive_seed(self.seed, "second pass", self._passes))
            embeddings, features = embeddings_of(self.backbone, images)
        self._passes += 1
        return embeddings, features, self.head(features)

    def supervised_loss(
        self, labels: Tensor, embeddings: Tensor, logits: Tensor, classification: float = 1.0
    ) -> Tensor:
        """Returns the configured loss: `classification` x cross-entropy, plus `loss.triplet` x triplet loss."""
        loss, weight = classification * self._cross_entropy(logits, labels), self.loss.triplet
        return loss + weight * batch_hard_triplet(embeddings, labels, self.loss.margin) if weight else loss

    # Lightning's hooks

    def setup(self, stage: str) -> None:
        """Reads the number of processes and the precision from the Trainer."""
        self._world = self.trainer.world_size
        # If 16-bit scaling skips a step, fused SGD leaves its momentum uninitialised.
        self._scaled = self.trainer.precision == "16-mixed"

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        """Returns the mean loss of this part of the batch, times the part's share. Triplets stay within the part."""
        with working_on(batch.part) if batch.part else nullcontext():
            if self._compiled is None:
                loss = self._loss(batch)
            else:
                self.zero_grad(set_to_none=True)  # a CUDA graph may reuse the memory of the last step's gradients
                with self._compiled.full_batch(batch.images):
                    loss = self._loss(batch)
        return loss * batch.share if batch.share != 1.0 else loss

    def _loss(self, batch: TrainBatch) -> Tensor:
        whole = self._world > 1 and current_part() is None  # every process computes the same loss, which counts once
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
                    if not isinstance(value, Tensor) or value.numel() != 1:
                        raise FedReIDError(f"callbacks.{name}: training_loss must return a scalar tensor or None")
                    loss = loss + weight * value
                self._record.add_term(name, loss.new_zeros(()) if value is None else value.detach())
        else:
            with self._own_pass(batch):
                logits = self.logits(batch.images)
            loss = self.classification_weight * self._cross_entropy(logits, labels)
        self._record.add(loss, logits, labels, 1.0 / self._world if whole else 1.0)
        return loss

    def _own_pass(self, batch: TrainBatch) -> AbstractContextManager[None]:
        if not self._maps:
            return nullcontext()
        stages = self.backbone.trunk.residual_stages()  # type: ignore[union-attr, operator]
        return changing(stages, [partial(hook, self, batch) for hook in self._maps])

    def on_train_epoch_start(self) -> None:
        """Sets the learning rates for the epoch."""
        optimizer = self.optimizers()
        optim, epoch = self.optim, self.epochs_before + self.current_epoch
        total = self.total_epochs or self.epochs_before + (self.trainer.max_epochs or 0)
        factor = rate_factor(epoch, optim.schedule, optim.step, optim.gamma, optim.warmup, total, optim.milestones)
        for group in optimizer.param_groups:  # type: ignore[union-attr]
            group["lr"] = group["base_lr"] * factor

    def on_train_epoch_end(self) -> None:
        """Averages the BatchNorm running statistics over all processes, since each saw only its own images."""
        if self.trainer.world_size > 1:
            average_statistics((self.backbone, self.clones), partial(self.trainer.strategy.reduce, reduce_op="mean"))

    def on_train_end(self) -> None:
        """Logs the turn's mean loss, training accuracy, and the mean of every added loss without its weight."""
        self.outbox.metrics |= self._record.means(partial(self.trainer.strategy.reduce, reduce_op="sum"))
        if self.clones:
            self.outbox.metrics["cost/cloned_bytes"] = float(self.clones.nbytes)
        self._record.clear()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns a new SGD with parameter groups for the backbone, the head and every trainable copy.

        With `optim.bottleneck=head` another group contains the backbone's bottleneck, at the head's learning rate.
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
        """Returns copies of SGD's momentum buffers by parameter name, and the state of the precision plugin."""
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        momentum = momentum_of(optimizer, self.named_parameters())
        return {"momentum": momentum, "precision": self.trainer.precision_plugin.state_dict()}

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=self.loss.label_smoothing)


def _triplet(client: ReIDClient, batch: TrainBatch, embeddings: Tensor, features: Tensor, logits: Tensor) -> Tensor:
    return batch_hard_triplet(embeddings, batch.labels, client.loss.margin)
