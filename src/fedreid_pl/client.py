"""A client: an exchanged backbone and a head that never leaves, as a LightningModule."""

from __future__ import annotations

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
from fedreid_pl.functional.batch_part import current_part, working_on
from fedreid_pl.functional.schedule import rate_factor
from fedreid_pl.functional.triplet import batch_hard_triplet
from fedreid_pl.metrics.retrieval import RankedSets, ReIDRetrieval
from fedreid_pl.models.compiled import CompiledTrunk


@dataclass
class Outbox:
    """What the client will send: filled by the client halves of callbacks during a turn."""

    backbone: dict[str, Tensor] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    extras: dict[str, Tensor] = field(default_factory=dict)


class ReIDClient(pl.LightningModule):
    """One client's model during one turn.

    The backbone is lent for the turn; the head is the client's own. Training is cross-entropy over the
    client's identities (the IDE baseline), plus the batch-hard triplet loss if `loss.triplet` is not zero;
    testing fills one retrieval metric per test set from loaders in the order query 0, gallery 0, query 1,
    gallery 1, ...

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
        self._losses: list[Tensor] = []
        self._triplets: list[Tensor] = []
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

    def training_step(self, batch: tuple[Any, ...], batch_idx: int) -> Tensor:
        """Mean loss of this process's part, times its share of the whole batch.

        Triplets are mined within the part.

        Args:
            batch: normalised images `[B, 3, H, W]`, labels `[B]`, share, and the `BatchPart` of one that was dealt out.
        """
        images, labels, share, *part = batch
        with working_on(*part) if part else nullcontext():
            if self._compiled is None:
                loss = self._loss(images, labels)
            else:
                self.zero_grad(set_to_none=True)  # gradients of the step before may lie in memory that a graph reuses
                with self._compiled.full_batch(images):
                    loss = self._loss(images, labels)
        return loss * share if share != 1.0 else loss

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        reported = 1.0
        if self._trainer is not None and self.trainer.world_size > 1 and current_part() is None:
            reported /= self.trainer.world_size  # a batch that every process computes whole, to be reported once
        if self.loss.triplet:
            metric, features = self.backbone.embeddings(images)  # type: ignore[operator]
            logits = self.head(features)
            triplet = batch_hard_triplet(metric, labels, self.loss.margin)
            loss = self._cross_entropy(logits, labels) + self.loss.triplet * triplet
            self._triplets.append(triplet.detach())
        else:
            logits = self.logits(images)
            loss = self._cross_entropy(logits, labels)
        self._losses.append(loss.detach())
        self._predicted.append(logits.detach().argmax(1))
        self._labels.append(labels)
        self._reported.append(reported)
        return loss

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
            buffers = [value for value in self.backbone.buffers() if value.is_floating_point()]
            flat = torch.cat([value.flatten() for value in buffers])
            mean = self.trainer.strategy.reduce(flat, reduce_op="mean")
            for value, part in zip(buffers, mean.split([value.numel() for value in buffers]), strict=True):
                value.copy_(part.view_as(value))

    def on_train_end(self) -> None:
        """Reports the turn's mean loss, training accuracy and, if there is one, the triplet loss without its weight."""
        losses = torch.stack(self._losses)  # a number per batch
        hits = torch.stack([(part == own).sum() for part, own in zip(self._predicted, self._labels, strict=True)])
        reported = losses.new_tensor(self._reported)
        counts = losses.new_tensor([len(own) for own in self._labels]) * reported
        sums = [(losses * counts).sum(), (hits * reported).sum()]
        if self.loss.triplet:
            sums.append((torch.stack(self._triplets) * counts).sum())
        sums.append(counts.sum())
        *totals, images = self.trainer.strategy.reduce(torch.stack(sums), reduce_op="sum").tolist()
        names = ("train/loss", "train/accuracy", "train/triplet")
        self.outbox.metrics |= {name: total / images for name, total in zip(names, totals, strict=False)}
        self._losses, self._triplets, self._predicted, self._labels, self._reported = [], [], [], [], []

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
        self._retrieval = {}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """New SGD with one rate for the backbone and one for the head.

        With `optim.bottleneck=head` a third group holds the backbone's bottleneck, at the head's rate.
        """
        bottleneck: list[nn.Parameter] = []
        if self.optim.bottleneck == "head":
            bottleneck = list(self.backbone.bottleneck.parameters())  # type: ignore[union-attr]
        apart = set(bottleneck)
        backbone = [value for value in self.backbone.parameters() if value not in apart]
        groups: list[dict[str, Any]] = [
            {"params": backbone, "lr": self.optim.lr_backbone},
            {"params": list(self.head.parameters()), "lr": self.optim.lr_head},
        ]
        if bottleneck:
            groups.append({"params": bottleneck, "lr": self.optim.lr_head})
        for group in groups:
            group["base_lr"] = group["lr"]
        # A step that 16-bit scaling skips leaves fused SGD's momentum uninitialised.
        scaled = self._trainer is not None and self._trainer.precision == "16-mixed"
        fused = self.device.type in ("cpu", "cuda") and not scaled
        o = self.optim
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

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=self.loss.label_smoothing)
