"""Further networks of a client's turn, copied from its backbone or its head."""

from __future__ import annotations

import copy
from collections.abc import Collection

from torch import nn


class Clones(nn.ModuleList):
    """Copies of networks that live as long as one turn.

    As a part of the client's module they go to its device and into its strategy; as a list of modules they are in no
    state dict that is exchanged or kept.

    Attributes:
        trained: (copy, original) of those that have gradients.
        attached: (layers, rate) of a callback's own layers, which are copies of nothing.
        closed: the optimizer exists, so that no further copy can be trained.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trained: list[tuple[nn.Module, nn.Module]] = []
        self.attached: list[tuple[nn.Module, float]] = []
        self.closed = False

    def clone(self, network: nn.Module, trainable: bool, entries: Collection[str] | None = None) -> nn.Module:
        """Returns a copy of a network as it is now; without gradients and in eval mode unless `trainable`.

        Args:
            network: the original.
            trainable: whether the copy has gradients.
            entries: names of the parameters and buffers that the copy has; the others are `None` in it, so that it
                cannot be run by itself. `None`: it has all.

        Raises:
            RuntimeError: for a trainable copy when the optimizer exists already.
        """
        if trainable:
            self._check_open()
        clone = copy.deepcopy(network)
        if entries is not None:
            _reduce(clone, frozenset(entries))
        clone.zero_grad(set_to_none=True)
        self.append(clone)
        if trainable:
            self.trained.append((clone, network))
        else:
            clone.requires_grad_(False).eval()
        return clone

    def attach(self, layers: nn.Module, rate: float) -> nn.Module:
        """Takes in layers that are trained in this turn, and returns them.

        Raises:
            RuntimeError: when the optimizer exists already.
        """
        self._check_open()
        self.append(layers)
        self.attached.append((layers, rate))
        return layers

    def _check_open(self) -> None:
        if self.closed:
            raise RuntimeError("the optimizer exists already: do this in the callback's setup hook")

    def train(self, mode: bool = True) -> Clones:
        """Sets train or eval mode; copies without gradients stay in eval mode."""
        super().train(mode)
        for clone in set(self) - {network for network, _ in (*self.trained, *self.attached)}:
            clone.eval()
        return self

    @property
    def nbytes(self) -> int:
        """Bytes of all copies."""
        return sum(value.nbytes for value in self.state_dict().values())

    def release(self) -> None:
        """Frees the memory of all copies, whoever still refers to them."""
        for value in (*self.parameters(), *self.buffers()):
            value.grad = None
            value.data = value.new_empty(0)


def _reduce(network: nn.Module, entries: frozenset[str]) -> None:
    """Takes every parameter and buffer out of a network that is not among the names."""
    for prefix, module in network.named_modules():
        for held in (module._parameters, module._buffers):
            for name in held:
                if (f"{prefix}.{name}" if prefix else name) not in entries:
                    held[name] = None  # type: ignore[assignment]
