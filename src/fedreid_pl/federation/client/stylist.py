"""Client side of the DACS methods: a learned transformation of images, and an expert model that judges it."""

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
"""Takes the expert's embeddings `[B, D]`, features `[B, D]` and logits `[B, C]`; returns the expert's loss."""


class LearnedStyle(nn.Module):
    """Holds phi = (m, s), the learned shift and scale of every pixel and channel, each `[3, H, W]` float32.

    Args:
        size: height and width of the images in pixels.
        draws: generator of the initial values.
    """

    def __init__(self, size: tuple[int, int], draws: torch.Generator) -> None:
        super().__init__()
        self.shift = nn.Parameter(0.1 * torch.randn(3, *size, generator=draws))
        self.scale = nn.Parameter(1 + 0.1 * torch.randn(3, *size, generator=draws))


class Stylist:
    """Holds one client's expert l and transformation phi, and computes the losses of transformed images.

    Args:
        name: name of the callback, for its random numbers and its messages.
        weight, diversity, authenticity, first_round, style_statistics, least_probability: options, see `DACS`.

    Raises:
        FedReIDError: if the value of an option is not valid.
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
        """Creates or restores the expert, and phi if this turn trains it. Call it in the callback's `setup`."""
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
        """Returns the expert's loss on the batch. The expert uses the client's head but does not train it."""
        assert self.expert is not None
        with undisturbed(pl_module.device):  # the federated model's dropout does not depend on the expert
            seed_generators(derive_seed(pl_module.seed, self.name, "expert", self._steps))
            embeddings, features = embeddings_of(self.expert, batch.images)
        self._steps += 1
        return loss(embeddings, features, _frozen(pl_module.head, features))

    def style_losses(
        self, pl_module: ReIDClient, batch: TrainBatch, loss: Tensor, styled: Callable[[Tensor], None] | None = None
    ) -> Tensor:
        """Returns `loss` plus the losses of x' and of phi; returns `loss` unchanged in turns that do not train phi.

        Args:
            pl_module: the client.
            batch: images and labels of the step.
            loss: the step's loss so far, a scalar.
            styled: called with the features `[B, D]` of x'. If it is given, they are computed even with `weight=0`.
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
            distance = self.style_distance(batch.images)  # the value is +distance, the gradient is that of L_div
            loss = loss + self.diversity * (2 * distance.detach() - distance)
        if self.authenticity:
            loss = loss + self.authenticity * self.authenticity_of(pl_module, batch.images, view)
        return loss

    def view(self, images: Tensor) -> Tensor:
        """Returns the transformed images x' `[B, 3, H, W]`, with gradients to phi."""
        assert self.style is not None
        return transform(images, self.style.shift, self.style.scale)

    def style_distance(self, images: Tensor) -> Tensor:
        """Returns the distance between phi and the images' statistics, a scalar of at least 0."""
        assert self.style is not None
        return style_distance(images, self.style.shift, self.style.scale, self.style_statistics)

    def authenticity_of(self, pl_module: ReIDClient, images: Tensor, view: Tensor) -> Tensor:
        """Returns L_au, a scalar whose gradient reaches only phi: both models are frozen and in eval mode."""
        assert self.expert is not None
        with torch.no_grad():
            own = _scores(pl_module.backbone, pl_module.head, images)
        ours = _scores(pl_module.backbone, pl_module.head, view)
        theirs = _scores(self.expert, pl_module.head, view)
        return authenticity_loss(own, ours, theirs, self.least_probability)

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Returns the state of the expert, and of phi if it exists."""
        parts = {"expert": self.expert, "style": self.style}
        fresh = {part: copied(network.state_dict()) for part, network in parts.items() if network is not None}
        return {**self._kept, **fresh}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the state that `state_dict` returned."""
        self._kept = {part: state[part] for part in ("expert", "style") if part in state}


def _frozen(network: nn.Module, inputs: Tensor) -> Tensor:
    """Returns the network's output; no gradients reach the network's parameters."""
    tensors = {name: value.detach() for name, value in network.named_parameters()}
    return functional_call(network, tensors, (inputs,))


def _scores(backbone: nn.Module, head: nn.Module, images: Tensor) -> Tensor:
    mode = backbone.training
    backbone.eval()
    try:
        return _frozen(head, _frozen(backbone, images))
    finally:
        backbone.train(mode)
