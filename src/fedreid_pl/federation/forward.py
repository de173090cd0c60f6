"""Features of batches, computed by the server's network in this process or in another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedreid_pl.data.augmentation import normalize
from fedreid_pl.functional.randomness import seed_generators


@dataclass(frozen=True)
class ForwardPass:
    """Weights and images of one forward pass.

    Args:
        state: weights of the network.
        batches: images `[B, 3, H, W]` uint8, one tensor per batch.
        train: whether the network is in train mode, with dropout and the statistics of the batch.
        seeds: seed of the random numbers of every batch; an empty sequence leaves the generators unchanged.
        what: description for messages, such as "a forward pass of mini-viper".
    """

    state: Mapping[str, Tensor]
    batches: Sequence[Tensor]
    train: bool = False
    seeds: Sequence[int] = ()
    what: str = "a forward pass"


@torch.no_grad()
def features_of(network: nn.Module, task: ForwardPass) -> Tensor:
    """Returns the features `[N, D]` of a task's batches in order; the network keeps the task's weights."""
    network.load_state_dict(task.state)
    network.train(task.train)
    found = []
    for number, images in enumerate(task.batches):
        if task.seeds:
            seed_generators(task.seeds[number])
        found.append(network(normalize(images)))
    return torch.cat(found)
