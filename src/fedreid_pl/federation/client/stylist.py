"""What the DACS family has at a client: a learned transformation of images, and an expert that judges it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedreid_pl.client import ReIDClient
from fedreid_pl.data.batch import TrainBatch
from fedreid_pl.errors import require
from fedreid_pl.functional.dacs import authenticity_loss, style_distance, transform
from fedreid_pl.functional.randomness import derive_seed, generator, seed_generators, undisturbed
from fedreid_pl.models.embedder import embeddings_of
from fedreid_pl.models.weights import copied, copy_state

ExpertLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(embeddings `[B, D]`, features `[B, D]`, logits `[B, C]`) of the expert on the batch -> its loss."""


class LearnedStyle(nn.Module):
    """phi = (m, s), one number each for every pixel of every channel: `[3, H, W]`."""

    def __init__(self, size: tuple[int, int], draws: torch.Generator) -> None:
        super().__init__()
        self.shift = nn.Parameter(0.1 * torch.randn(3, *size, generator=draws))
        self.scale = nn.Parameter(1 + 0.1 * torch.randn(3, *size, generator=draws))


class Stylist:
    """The expert l and the transformation phi of one client, over its turns, and the losses of transformed images.

    Args:
        name: of the callback, for its random numbers and for messages.
        weight, diversity, authenticity, first_round, style_statistics, least_probability: its options, see `DACS`.

    Raises:
        FedReIDError: for a value that an option cannot have.
    """

    def __init__(
        self,
        name: str,
        weight: float = 1.0,
        diversity: float = 1.0,
        authenticity: float = 5.0,
        first_round: int = 2,
        style_statistics: Literal["deviation", "variance"] = "deviation",
        least_probability: float = 0.0,
    ) -> None:
        check = partial(require, f"callbacks.{name}")
        for option, value in (("weight", weight), ("diversity", diversity), ("authenticity", authenticity)):
            check(0 <= value < math.inf, option, value, "a finite number, at least 0")
        check(first_round >= 1, "first_round", first_round, "at least 1")
        check(0 <= least_probability < 1, "least_probability", least_probability, "at least 0 and below 1")
        self.name, self.first_round = name, first_round
        self.weight, self.diversity, self.authenticity = weight, diversity, authenticity
        self.style_statistics: Literal["deviation", "variance"] = style_statistics
        self.least_probability = least_probability
        self._kept: dict[str, dict[str, Tensor]] = {}
        self._steps = 0
        self.expert: nn.Module | None = None
        self.style: LearnedStyle | None = None

    def begin(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """In the callback's `setup`: makes the expert, and phi if it is trained in this turn, or takes them up."""
        self.expert = pl_module.clone_backbone()
        if "expert" in self._kept:
            copy_state(self._kept["expert"], self.expert)
        if pl_module.job.round >= self.first_round and self.weight + self.diversity + self.authenticity:
            size = trainer.datamodule.config  # type: ignore[attr-defined]
            self.style = LearnedStyle((size.height, size.width), generator(pl_module.seed, self.name, "style"))
            if "style" in self._kept:
                self.style.load_state_dict(self._kept["style"])
            pl_module.attach(self.style)

    def expert_loss(self, pl_module: ReIDClient, batch: TrainBatch, loss: ExpertLoss) -> Tensor:
        """The expert's loss on the batch; the head is the client's own, which it does not train."""
        assert self.expert is not None
        with undisturbed(pl_module.device):  # the federated model's dropout does not depend on the expert
            seed_generators(derive_seed(pl_module.seed, self.name, "expert", self._steps))
            embeddings, features = embeddings_of(self.expert, batch.images)
        self._steps += 1
        return loss(embeddings, features, _frozen(pl_module.head, features))

    def style_losses(
        self, pl_module: ReIDClient, batch: TrainBatch, loss: Tensor, styled: Callable[[Tensor], None] | None = None
    ) -> Tensor:
        """Returns `loss` plus the losses of x' and of phi; `loss` itself in turns that do not train phi.

        Args:
            pl_module: the client.
            batch: the step's images and labels.
            loss: of the step so far.
            styled: takes the features `[B, D]` of x'; with it they are computed whatever `weight` is.
        """
        if self.style is None:
            return loss
        view = self.view(batch.images)
        if self.weight or styled is not None:
            embeddings, features, logits = pl_module.second_pass(view)
            loss = loss + self.weight * pl_module.supervised_loss(batch.labels, embeddings, logits)
            if styled is not None:
                styled(features)
        if self.diversity:
            distance = self.style_distance(batch.images)  # reported with a plus sign; the gradient is L_div's
            loss = loss + self.diversity * (2 * distance.detach() - distance)
        if self.authenticity:
            loss = loss + self.authenticity * self.authenticity_of(pl_module, batch.images, view)
        return loss

    def view(self, images: Tensor) -> Tensor:
        """x', with gradients to phi."""
        assert self.style is not None
        return transform(images, self.style.shift, self.style.scale)

    def style_distance(self, images: Tensor) -> Tensor:
        """How far phi is from the images' statistics, at least 0."""
        assert self.style is not None
        return style_distance(images, self.style.shift, self.style.scale, self.style_statistics)

    def authenticity_of(self, pl_module: ReIDClient, images: Tensor, view: Tensor) -> Tensor:
        """L_au, whose gradient goes to phi alone: both models are frozen and in eval mode."""
        assert self.expert is not None
        with torch.no_grad():
            own = _scores(pl_module.backbone, pl_module.head, images)
        ours = _scores(pl_module.backbone, pl_module.head, view)
        theirs = _scores(self.expert, pl_module.head, view)
        return authenticity_loss(own, ours, theirs, self.least_probability)

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """The expert, and phi if there is one."""
        parts = {"expert": self.expert, "style": self.style}
        fresh = {part: copied(network.state_dict()) for part, network in parts.items() if network is not None}
        return {**self._kept, **fresh}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes them back."""
        self._kept = {part: state[part] for part in ("expert", "style") if part in state}


def _frozen(network: nn.Module, inputs: Tensor) -> Tensor:
    """The network's output, without gradients to its parameters."""
    tensors = {name: value.detach() for name, value in network.named_parameters()}
    return functional_call(network, tensors, (inputs,))


def _scores(backbone: nn.Module, head: nn.Module, images: Tensor) -> Tensor:
    mode = backbone.training
    backbone.eval()
    try:
        return _frozen(head, _frozen(backbone, images))
    finally:
        backbone.train(mode)
