"""Another model in the place of a client's backbone for the client's own evaluation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class StandIn:
    """Puts tensors into a network while a client evaluates itself, and afterwards the network's own ones back.

    `enter` belongs into `on_test_start`, `leave` into `on_test_end`.

    >>> network, stand_in = nn.Linear(1, 1, bias=False), StandIn()
    >>> before = network.weight.item()
    >>> stand_in.enter(network, {"weight": torch.tensor([[5.0]])})
    >>> network.weight.item()
    5.0
    >>> stand_in.leave(network)
    >>> network.weight.item() == before
    True
    """

    def __init__(self) -> None:
        self._own: dict[str, Tensor] = {}

    def enter(self, network: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Copies a state, or a part of one, into the network."""
        held = network.state_dict()
        self._own = {name: held[name].clone() for name in state}
        _copy(state, held)

    def leave(self, network: nn.Module) -> None:
        """Restores what `enter` replaced; without it nothing happens."""
        _copy(self._own, network.state_dict())
        self._own = {}


@torch.no_grad()
def _copy(state: Mapping[str, Tensor], into: Mapping[str, Tensor]) -> None:
    for name, value in state.items():
        into[name].copy_(value)
