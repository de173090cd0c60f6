"""What the DACS family has at a client: a learned transformation of images, and an expert that judges it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedreid_pl.client import ReIDClient
from fedreid_pl.data.batch import TrainBatch
from fedreid_pl.functional.dacs import authenticity_loss, style_distance, transform
from fedreid_pl.functional.randomness import derive_seed, generator, seed_generators
from fedreid_pl.models.embedder import embeddings_of
from fedreid_pl.models.weights import copy_state

ExpertLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(embeddings `[B, D]`, features `[B, D]`, logits `[B, C]`) of the expert on the batch -> its loss."""


class LearnedStyle(nn.Module):
    """phi = (m, s), one number each for every pixel of every channel: `[3, H, W]`."""

    def __init__(self, size: tuple[int, int], draws: torch.Generator) -> None:
        super().__init__()
        self.shift = nn.Parameter(0.1 * torch.randn(3, *size, generator=draws))
        self.scale = nn.Parameter(1 + 0.1 * torch.randn(3, *size, generator=draws))


class Stylist:
    """The expert l and the transformation phi of one client, over its turns.

    Args:
        name: of the callback, for its random numbers.
        of, least: options of `style_distance` and `authenticity_loss`.
    """

    def __init__(self, name: str, of: Literal["deviation", "variance"] = "deviation", least: float = 0.0) -> None:
        self.name, self.least = name, least
        self.of: Literal["deviation", "variance"] = of
        self._kept: dict[str, dict[str, Tensor]] = {}
        self._steps = 0
        self.expert: nn.Module | None = None
        self.style: LearnedStyle | None = None

    def begin(self, pl_module: Any, size: tuple[int, int], styled: bool) -> None:
        """In the callback's `setup`: makes the expert, and phi if it is trained in this turn, or takes them up.

        Args:
            pl_module: the client.
            size: height and width of images.
            styled: whether this turn trains phi.
        """
        self.expert = pl_module.clone_backbone()
        if "expert" in self._kept:
            copy_state(self._kept["expert"], self.expert)
        if styled:
            self.style = LearnedStyle(size, generator(pl_module.seed, self.name, "style"))
            if "style" in self._kept:
                self.style.load_state_dict(self._kept["style"])
            pl_module.attach(self.style)

    def expert_loss(self, pl_module: ReIDClient, batch: TrainBatch, loss: ExpertLoss) -> Tensor:
        """The expert's loss on the batch; the head is the client's own, which it does not train."""
        assert self.expert is not None
        cuda = [pl_module.device] if pl_module.device.type == "cuda" else []
        with torch.random.fork_rng(cuda):  # the federated model's dropout does not depend on the expert
            seed_generators(derive_seed(pl_module.seed, self.name, "expert", self._steps))
            embeddings, features = embeddings_of(self.expert, batch.images)
        self._steps += 1
        return loss(embeddings, features, _frozen(pl_module.head, features))

    def view(self, images: Tensor) -> Tensor:
        """x', with gradients to phi."""
        assert self.style is not None
        return transform(images, self.style.shift, self.style.scale)

    def style_distance(self, images: Tensor) -> Tensor:
        """How far phi is from the images' statistics, at least 0."""
        assert self.style is not None
        return style_distance(images, self.style.shift, self.style.scale, self.of)

    def authenticity(self, pl_module: ReIDClient, images: Tensor, view: Tensor) -> Tensor:
        """L_au, whose gradient goes to phi alone: both models are frozen and in eval mode."""
        assert self.expert is not None
        with torch.no_grad():
            own = _scores(pl_module.backbone, pl_module.head, images)
        ours = _scores(pl_module.backbone, pl_module.head, view)
        theirs = _scores(self.expert, pl_module.head, view)
        return authenticity_loss(own, ours, theirs, self.least)

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """The expert, and phi if there is one."""
        parts = {"expert": self.expert, "style": self.style}
        fresh = {
            part: {name: value.detach().to("cpu", copy=True) for name, value in network.state_dict().items()}
            for part, network in parts.items()
            if network is not None
        }
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
