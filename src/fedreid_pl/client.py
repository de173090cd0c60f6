"""A client: an exchanged backbone and a head that never leaves, as a LightningModule."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedreid_pl.config import LossConfig, OptimConfig
from fedreid_pl.data.batch import TrainBatch
from fedreid_pl.functional.batch_part import current_part, working_on
from fedreid_pl.functional.schedule import rate_factor
from fedreid_pl.functional.triplet import batch_hard_triplet
from fedreid_pl.metrics.retrieval import RankedSets, ReIDRetrieval
from fedreid_pl.models.clones import Clones
from fedreid_pl.models.compiled import CompiledTrunk

MOST_TIED = 0.01  # share of queries whose first match may tie with an image of somebody else without a warning

TrainingLoss = Callable[["ReIDClient", TrainBatch, Tensor, Tensor, Tensor], Tensor | None]
"""(client, batch, embeddings `[B, D]`, features `[B, D]`, logits `[B, identities]`) -> what a step adds to its loss."""


@dataclass
class Outbox:
    """What the client will send: filled by the client halves of callbacks during a turn."""

    backbone: dict[str, Tensor] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    extras: dict[str, Tensor] = field(default_factory=dict)


class ReIDClient(pl.LightningModule):
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

    Attributes:
        clones: further networks of this turn, see `clone_backbone`.
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
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.optim = optim
        self.loss = loss or LossConfig()
        self.epochs_before = epochs_before if optim.scope == "run" else 0
        self.total_epochs = total_epochs if optim.scope == "run" else None
        self.job = job
        self.outbox = Outbox()
        self.scores: dict[str, dict[str, float]] = {}
        self.retrieval_options = dict(retrieval_options or {})
        self.inspect = inspect
        self._compiled = compiled
        self._optimizer_state = optimizer_state
        self._retrieval: dict[str, ReIDRetrieval] = {}
        self._added: dict[str, tuple[float, TrainingLoss]] = {}
        if self.loss.triplet:
            self._added["triplet"] = (self.loss.triplet, _triplet)
        self._added |= {name: (1.0, term) for name, term in (losses or {}).items()}
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

    def forward(self, images: Tensor) -> Tensor:
        """Flip-averaged, L2-normalised features `[B, D]` float32, as they are compared at test time."""
        features = self.backbone(images).float() + self.backbone(images.flip(3)).float()
        return F.normalize(features, dim=1)

    def logits(self, images: Tensor) -> Tensor:
        """Scores over the client's identities `[B, identities]`."""
        return self.head(self.backbone(images))

    # a second network

    def clone_backbone(self, trainable: bool = True) -> nn.Module:
        """Returns a copy of the backbone as it is now, for this turn alone.

        The copy goes to the device, into the strategy and, if `trainable`, into the optimizer at the backbone's rates;
        its bytes are reported as `cost/cloned_bytes`. It is never exchanged: what has to last until the next turn goes
        through the callback's `client_state_dict`. After the turn its memory is freed.

        Args:
            trainable: the copy is trained by what `training_loss` returns, in every step. A callback makes such a copy
                in `setup`, where the backbone has the run's initial weights. `False`: the copy has no gradients and
                stays in eval mode, and may be made in any hook of the turn.

        Raises:
            RuntimeError: for a trainable copy when the optimizer exists already.
        """
        return self.clones.clone(self.backbone, trainable)

    def clone_head(self, trainable: bool = True) -> nn.Module:
        """Returns a copy of the head as it is now, at the head's rate; otherwise as `clone_backbone`."""
        return self.clones.clone(self.head, trainable)

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
        labels = batch.labels
        if self._added:
            embeddings, features = self._embeddings(batch.images)
            logits = self.head(features)
            loss = self._cross_entropy(logits, labels)
            for name, (weight, term) in self._added.items():
                value = term(self, batch, embeddings, features, logits)
                if value is not None:
                    loss = loss + weight * value
                self._terms[name].append(loss.new_zeros(()) if value is None else value.detach())
        else:
            logits = self.logits(batch.images)
            loss = self._cross_entropy(logits, labels)
        self._losses.append(loss.detach())
        self._predicted.append(logits.detach().argmax(1))
        self._labels.append(labels)
        self._reported.append(1.0 / self._world if whole else 1.0)
        return loss

    def _embeddings(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if hasattr(self.backbone, "embeddings"):
            return self.backbone.embeddings(images)  # type: ignore[operator]
        features = self.backbone(images)
        return features, features

    def on_train_epoch_start(self) -> None:
        """Sets the learning rates of the epoch."""
        optimizer = self.optimizers()
        optim, epoch = self.optim, self.epochs_before + self.current_epoch
        total = self.total_epochs or self.epochs_before + (self.trainer.max_epochs or 0)
        factor = rate_factor(epoch, optim.schedule, optim.step, optim.gamma, optim.warmup, total)
        for group in optimizer.param_groups:  # type: ignore[union-attr]
            group["lr"] = group["base_lr"] * factor

    def on_train_epoch_end(self) -> None:
        """Under several processes, averages the running statistics that each took from its own images."""
        if self.trainer.world_size > 1:
            networks = (self.backbone, self.clones)
            buffers = [value for network in networks for value in network.buffers() if value.is_floating_point()]
            flat = torch.cat([value.flatten() for value in buffers])
            mean = self.trainer.strategy.reduce(flat, reduce_op="mean")
            for value, part in zip(buffers, mean.split([value.numel() for value in buffers]), strict=True):
                value.copy_(part.view_as(value))

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

    def on_test_start(self) -> None:
        """Makes one metric per active test set."""
        names: Sequence[str] = self.trainer.datamodule.active_tests  # type: ignore[attr-defined]
        self._retrieval = {}
        for name in names:
            inspect = partial(self.inspect, name) if self.inspect else None
            self._retrieval[name] = ReIDRetrieval(**self.retrieval_options, inspect=inspect).to(self.device)

    def test_step(self, batch: tuple[Tensor, ...], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Adds a batch of query (even loader) or gallery (odd loader) features to its test set's metric."""
        images, identities, cameras, rows = batch
        metric = list(self._retrieval.values())[dataloader_idx // 2]
        metric.update(self(images), identities, cameras, rows, query=dataloader_idx % 2 == 0)

    def on_test_epoch_end(self) -> None:
        """Computes every test set's scores, gathered over processes."""
        for name, metric in self._retrieval.items():
            self.scores[name] = {key: float(value) for key, value in metric.compute().items()}
            if metric.tied > MOST_TIED and self.trainer.is_global_zero:
                warnings.warn(
                    f"{name}: for more than {MOST_TIED:.0%} of the queries the first match has the score of an image "
                    "of somebody else; such places are shared, see ties=expected. The features may have collapsed.",
                    stacklevel=2,
                )
        self._retrieval = {}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """New SGD with one rate for the backbone and one for the head; trainable copies have groups of their own.

        With `optim.bottleneck=head` a third group holds the backbone's bottleneck, at the head's rate.
        """
        first, *rest = self._backbone_groups(self.backbone)
        groups = [first, self._head_group(self.head), *rest]
        for clone, source in self.clones.trained:
            groups += self._backbone_groups(clone) if source is self.backbone else [self._head_group(clone)]
        for group in groups:
            group["base_lr"] = group["lr"]
        fused = self.device.type in ("cpu", "cuda") and not self._scaled
        o = self.optim
        self.clones.closed = True
        optimizer = torch.optim.SGD(
            groups, momentum=o.momentum, weight_decay=o.weight_decay, nesterov=o.nesterov, fused=fused
        )
        if self._optimizer_state:
            momentum = self._optimizer_state["momentum"]
            for name, value in self.named_parameters():
                if name in momentum:
                    optimizer.state[value]["momentum_buffer"] = momentum[name].to(value)
            self.trainer.precision_plugin.load_state_dict(self._optimizer_state["precision"])
        return optimizer

    def optimizer_state(self) -> dict[str, Any]:
        """Copies of SGD's momentum buffers after training, by parameter name, and 16-mixed precision's loss scale."""
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        found = {name: optimizer.state.get(value, {}) for name, value in self.named_parameters()}
        buffers = {
            name: state["momentum_buffer"] for name, state in found.items() if state.get("momentum_buffer") is not None
        }
        momentum = {name: value.detach().to("cpu", copy=True) for name, value in buffers.items()}
        return {"momentum": momentum, "precision": self.trainer.precision_plugin.state_dict()}

    def _backbone_groups(self, backbone: nn.Module) -> list[dict[str, Any]]:
        bottleneck: list[nn.Parameter] = []
        if self.optim.bottleneck == "head":
            bottleneck = list(backbone.bottleneck.parameters())  # type: ignore[union-attr]
        apart = set(bottleneck)
        rest = [value for value in backbone.parameters() if value not in apart]
        groups: list[dict[str, Any]] = [{"params": rest, "lr": self.optim.lr_backbone}]
        return [*groups, {"params": bottleneck, "lr": self.optim.lr_head}] if bottleneck else groups

    def _head_group(self, head: nn.Module) -> dict[str, Any]:
        return {"params": list(head.parameters()), "lr": self.optim.lr_head}

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=self.loss.label_smoothing)


def _triplet(client: ReIDClient, batch: TrainBatch, embeddings: Tensor, features: Tensor, logits: Tensor) -> Tensor:
    return batch_hard_triplet(embeddings, batch.labels, client.loss.margin)
