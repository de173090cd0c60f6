"""Evaluates a client with another model in place of its backbone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class StandIn:
    """Loads tensors into a network for a client's evaluation, and restores the network's own tensors afterwards.

    Call `enter` in `on_test_start` and `leave` in `on_test_end`.

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
        """Copies a state dict, or some of its entries, into the network."""
        held = network.state_dict()
        self._own = {name: held[name].clone() for name in state}
        _copy(state, held)

    def leave(self, network: nn.Module) -> None:
        """Restores the tensors that `enter` replaced; without an earlier `enter` it does nothing."""
        _copy(self._own, network.state_dict())
        self._own = {}


@torch.no_grad()
def _copy(state: Mapping[str, Tensor], into: Mapping[str, Tensor]) -> None:
    for name, value in state.items():
        into[name].copy_(value)
