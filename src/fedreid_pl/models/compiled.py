"""torch.compile for a backbone's trunk, without any change of the network itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class CompiledTrunk:
    """Compiles the trunk of a backbone for full training batches. All other parts of the network run uncompiled.

    All clients use the same backbone object, so one graph serves all of them. The head is not compiled because its size
    differs between clients, and dropout is not compiled because it would draw other numbers. Batches of another size
    and the network in eval mode run uncompiled; otherwise torch would compile a graph for every size of a last batch.
    The state dict of the network, its copies and its results outside of `full_batch` do not change.

    Args:
        backbone: has a module `trunk`.
        mode: mode of `torch.compile`; `reduce-overhead` replays CUDA graphs on a GPU.
        batch: images of a full training batch in this process.
        backend: backend of `torch.compile`.
    """

    def __init__(self, backbone: nn.Module, mode: str, batch: int, backend: str | Callable = "inductor") -> None:
        trunk = backbone.trunk
        assert isinstance(trunk, nn.Module)
        self.trunk, self.batch = trunk, batch
        chosen = mode if backend == "inductor" else None  # only inductor has modes
        self._forward = torch.compile(trunk.forward, dynamic=False, backend=backend, mode=chosen)

    @contextmanager
    def full_batch(self, images: Tensor) -> Iterator[None]:
        """Returns a context in which the trunk runs compiled, if it is training and `images` are a full batch.

        Args:
            images: `[B, 3, H, W]`.
        """
        if len(images) != self.batch or not self.trunk.training:
            yield
            return
        torch.compiler.cudagraph_mark_step_begin()  # CUDA graphs reuse the memory of the previous step
        vars(self.trunk)["forward"] = self._forward
        try:
            yield
        finally:
            del vars(self.trunk)["forward"]
