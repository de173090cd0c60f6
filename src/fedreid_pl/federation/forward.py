"""Features of batches by one network, as the server computes them, in this process or in another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedreid_pl.data.augmentation import normalize
from fedreid_pl.functional.randomness import seed_generators


@dataclass(frozen=True)
class ForwardPass:
    """What one network is run on.

    Args:
        state: the network's weights.
        batches: images `[B, 3, H, W]` uint8 each.
        train: whether dropout and batch statistics are in use.
        seeds: of every batch's random numbers; empty: they are left as they are.
        what: for messages, such as "a forward pass of mini-viper".
    """

    state: Mapping[str, Tensor]
    batches: Sequence[Tensor]
    train: bool = False
    seeds: Sequence[int] = ()
    what: str = "a forward pass"


@torch.no_grad()
def features_of(network: nn.Module, task: ForwardPass) -> Tensor:
    """Returns the features `[N, D]` of the batches of a task, in their order; the network keeps the task's weights."""
    network.load_state_dict(task.state)
    network.train(task.train)
    found = []
    for number, images in enumerate(task.batches):
        if task.seeds:
            seed_generators(task.seeds[number])
        found.append(network(normalize(images)))
    return torch.cat(found)
