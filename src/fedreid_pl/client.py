"""A client: an exchanged backbone and a head that never leaves, as a LightningModule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedreid_pl.config import OptimConfig
from fedreid_pl.functional.schedule import step_factor
from fedreid_pl.metrics.retrieval import ReIDRetrieval


@dataclass
class Outbox:
    """What the client will send: filled by the client halves of callbacks during a turn."""

    backbone: dict[str, Tensor] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    extras: dict[str, Tensor] = field(default_factory=dict)


class ReIDClient(pl.LightningModule):
    """One client's model during one turn.

    The backbone is lent for the turn; the head is the client's own. Training is cross-entropy over the
    client's identities (the IDE baseline); testing fills one retrieval metric per test set from loaders in
    the order query 0, gallery 0, query 1, gallery 1, ...

    Args:
        backbone: maps normalised images `[B, 3, H, W]` to features `[B, D]`.
        head: maps features to logits `[B, identities]`.
        optim: SGD and its schedule.
        epochs_before: epochs this run has trained before the turn, for the schedule.
        job: what the server sent, read by the client halves of callbacks (round, client, backbone, config).
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        optim: OptimConfig,
        epochs_before: int = 0,
        job: Any = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.optim = optim
        self.epochs_before = epochs_before if optim.scope == "run" else 0
        self.job = job
        self.outbox = Outbox()
        self.scores: dict[str, dict[str, float]] = {}
        self._retrieval: dict[str, ReIDRetrieval] = {}
        self._losses: list[Tensor] = []
        self._correct: list[Tensor] = []
        self._images = 0

    def forward(self, images: Tensor) -> Tensor:
        """Flip-averaged, L2-normalised features `[B, D]` float32, as they are compared at test time."""
        features = self.backbone(images).float() + self.backbone(images.flip(3)).float()
        return F.normalize(features, dim=1)

    def logits(self, images: Tensor) -> Tensor:
        """Scores over the client's identities `[B, identities]`."""
        return self.head(self.backbone(images))

    def training_step(self, batch: tuple[Tensor, Tensor, float], batch_idx: int) -> Tensor:
        """Mean cross-entropy of this process's part, times its share of the whole batch."""
        images, labels, share = batch
        logits = self.logits(images)
        loss = F.cross_entropy(logits, labels)
        self._losses.append(loss.detach() * len(labels))
        self._correct.append((logits.detach().argmax(1) == labels).sum())
        self._images += len(labels)
        return loss * share if share != 1.0 else loss

    def on_train_epoch_start(self) -> None:
        """Sets the learning rates of the epoch."""
        optimizer = self.optimizers()
        factor = step_factor(self.epochs_before + self.current_epoch, self.optim.step, self.optim.gamma)
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
        """Reports the turn's mean loss and training accuracy."""
        sums = torch.stack([torch.stack(self._losses).sum(), torch.stack(self._correct).sum()])
        sums = torch.cat([sums, sums.new_tensor([self._images])])
        total, correct, images = self.trainer.strategy.reduce(sums, reduce_op="sum").tolist()
        self.outbox.metrics |= {"train/loss": total / images, "train/accuracy": correct / images}
        self._losses, self._correct, self._images = [], [], 0

    def on_test_start(self) -> None:
        """Makes one metric per active test set."""
        names: Sequence[str] = self.trainer.datamodule.active_tests  # type: ignore[attr-defined]
        self._retrieval = {name: ReIDRetrieval().to(self.device) for name in names}

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
        """New SGD with one rate for the backbone and one for the head."""
        groups = [
            {"params": list(self.backbone.parameters()), "lr": self.optim.lr_backbone},
            {"params": list(self.head.parameters()), "lr": self.optim.lr_head},
        ]
        for group in groups:
            group["base_lr"] = group["lr"]
        fused = self.device.type in ("cpu", "cuda")
        return torch.optim.SGD(groups, momentum=self.optim.momentum, weight_decay=self.optim.weight_decay, fused=fused)
