"""Additional networks of a client's turn: copies of its backbone or head, and layers of callbacks."""

from __future__ import annotations

import copy
from collections.abc import Collection

from torch import nn


class Clones(nn.ModuleList):
    """Copies of networks that exist during one turn of a client.

    The copies are part of the client's module, so Lightning moves them to its device and its strategy handles them.
    They are outside of the backbone and the head, so no exchanged or saved state dict contains them.

    Attributes:
        trained: (copy, original) for every copy with gradients.
        attached: (layers, learning rate) for layers that a callback has created itself.
        closed: `True` once the optimizer exists; after that, no trainable network can be added.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trained: list[tuple[nn.Module, nn.Module]] = []
        self.attached: list[tuple[nn.Module, float]] = []
        self.closed = False

    def clone(self, network: nn.Module, trainable: bool, entries: Collection[str] | None = None) -> nn.Module:
        """Returns a copy of a network. The copy has no gradients and is in eval mode, unless `trainable` is true.

        Args:
            network: the original.
            trainable: whether the copy has gradients.
            entries: names of the parameters and buffers of the copy; all others are `None`, so that the copy cannot
                run by itself. `None` copies all parameters and buffers.

        Raises:
            RuntimeError: if the copy is trainable and the optimizer already exists.
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
        """Adds layers that are trained in this turn, and returns them.

        Args:
            layers: layers that a callback has created.
            rate: their learning rate.

        Raises:
            RuntimeError: if the optimizer already exists.
        """
        self._check_open()
        self.append(layers)
        self.attached.append((layers, rate))
        return layers

    def _check_open(self) -> None:
        if self.closed:
            raise RuntimeError("the optimizer already exists: add trainable networks in the callback's setup hook")

    def train(self, mode: bool = True) -> Clones:
        """Sets train or eval mode; copies without gradients stay in eval mode."""
        super().train(mode)
        for clone in set(self) - {network for network, _ in (*self.trained, *self.attached)}:
            clone.eval()
        return self

    @property
    def nbytes(self) -> int:
        """Size of all copies in bytes."""
        return sum(value.nbytes for value in self.state_dict().values())

    def release(self) -> None:
        """Frees the memory of all copies, even if other objects still refer to them."""
        for value in (*self.parameters(), *self.buffers()):
            value.grad = None
            value.data = value.new_empty(0)


def _reduce(network: nn.Module, entries: frozenset[str]) -> None:
    """Sets every parameter and buffer of a network to `None` if its name is not in `entries`."""
    for prefix, module in network.named_modules():
        for held in (module._parameters, module._buffers):
            for name in held:
                if (f"{prefix}.{name}" if prefix else name) not in entries:
                    held[name] = None  # type: ignore[assignment]
